/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/bytes.h - little-endian bytes and a bounded reader and writer over them.
 *
 * A reader or writer that runs off its end sets `bad` and from then on gives zeros or drops bytes, so a
 * decoder checks once, at the end.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void put_le16(void *p, uint16_t v) { memcpy(p, &v, sizeof(v)); }
static inline void put_le32(void *p, uint32_t v) { memcpy(p, &v, sizeof(v)); }
static inline void put_le64(void *p, uint64_t v) { memcpy(p, &v, sizeof(v)); }
static inline uint16_t get_le16(const void *p) { uint16_t v; memcpy(&v, p, sizeof(v)); return v; }
static inline uint32_t get_le32(const void *p) { uint32_t v; memcpy(&v, p, sizeof(v)); return v; }
static inline uint64_t get_le64(const void *p) { uint64_t v; memcpy(&v, p, sizeof(v)); return v; }
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "unum runs on x86-64 only");

struct reader {
	const uint8_t *p, *end;
	bool bad;
};

static inline void reader_bytes(struct reader *r, void *out, size_t len)
{
	if ((size_t)(r->end - r->p) < len) {
		r->bad = true;
		r->p = r->end;
		memset(out, 0, len);
		return;
	}
	memcpy(out, r->p, len);
	r->p += len;
}
static inline uint8_t reader_u8(struct reader *r) { uint8_t v; reader_bytes(r, &v, 1); return v; }
static inline uint16_t reader_u16(struct reader *r) { uint16_t v; reader_bytes(r, &v, 2); return v; }
static inline uint32_t reader_u32(struct reader *r) { uint32_t v; reader_bytes(r, &v, 4); return v; }
static inline uint64_t reader_u64(struct reader *r) { uint64_t v; reader_bytes(r, &v, 8); return v; }

struct writer {
	uint8_t *p, *end;
	bool bad;
};

static inline void writer_bytes(struct writer *w, const void *in, size_t len)
{
	if ((size_t)(w->end - w->p) < len) {
		w->bad = true;
		w->p = w->end;
		return;
	}
	memcpy(w->p, in, len);
	w->p += len;
}
static inline void writer_u8(struct writer *w, uint8_t v) { writer_bytes(w, &v, 1); }
static inline void writer_u16(struct writer *w, uint16_t v) { writer_bytes(w, &v, 2); }
static inline void writer_u32(struct writer *w, uint32_t v) { writer_bytes(w, &v, 4); }
static inline void writer_u64(struct writer *w, uint64_t v) { writer_bytes(w, &v, 8); }

#endif
