/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/tls.h - the pool key, and TLS 1.3 made from it.
 *
 * What      Both ends prove that they hold the pool key (external PSK, RFC 8446 section 2.2, with a
 *           fresh ECDHE each time); there are no certificates and no way back to plain text.
 * Threads   One per struct cc_tls.
 */
#ifndef CC_TLS_H
#define CC_TLS_H

#include "base/err.h"
#include "cluster-config/control.h"

#include <openssl/ssl.h>

struct cc_key {
	uint8_t byte[CC_KEY_BYTES];
};

#define CC_KEY_HEX (2 * CC_KEY_BYTES)

/* Fresh from the system's generator. */
MUST_CHECK int cc_key_make(struct cc_key *out);
/* CC_KEY_HEX digits and a newline. */
void cc_key_hex(const struct cc_key *key, char out[static CC_KEY_HEX + 2]);
/* Makes `path` with mode 0600; -EEXIST: never over another key. */
MUST_CHECK int cc_key_save(const struct cc_key *key, const char *path);
/* -EACCES: others may read it; -EINVAL: not a key; or open's error. */
MUST_CHECK int cc_key_load(const char *path, struct cc_key *out);
/* From an open descriptor (a pipe), to its end. */
MUST_CHECK int cc_key_read(int fd, struct cc_key *out);

struct cc_tls {
	SSL_CTX *ctx;
	struct cc_key key;
};

/* `t` must not move afterwards. */
MUST_CHECK int cc_tls_open(struct cc_tls *t, const struct cc_key *key);
void cc_tls_close(struct cc_tls *t);
/* True: the handshake that is over proved the pool key. */
bool cc_tls_proved(const SSL *ssl);

#endif
