/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/wire.h - a coherence message as bytes.
 *
 * What      struct proto_msg <-> WIRE_MSG_BYTES bytes, the body of a fabric message; the page's bytes, when
 *           there are any, travel beside it as the fabric message's data.
 * Threads   Any; no state.   I/O  None.
 * Limits    One version is understood.  Decoding rejects whatever encoding would not have produced.
 *
 *   offset  size  field
 *   0       1     version, WIRE_VERSION
 *   1       1     kind, enum proto_kind
 *   2       1     right, enum proto_right (GRANT, else 0)
 *   3       1     bytes, enum proto_bytes (GRANT, RETURN; else 0)
 *   4       1     node: requester that an FWD, RECALL or INV speaks of, else 0
 *   5       1     acks to wait for (FWD_WRITE, GRANT; else 0)
 *   6       1     copy: 1 when the requester has a readable copy (REQ_WRITE, else 0)
 *   7       1     0
 *   8       8     page number, little endian
 */
#ifndef DSM_CORE_WIRE_H
#define DSM_CORE_WIRE_H

#include "dsm/core/proto.h"

#define WIRE_VERSION 1u
#define WIRE_MSG_BYTES 16u

void wire_encode(const struct proto_msg *m, uint8_t out[static WIRE_MSG_BYTES]);

/*
 * body/body_len: untrusted bytes; data_len: length of the page data beside them.  True when it is a message
 * that some node could send: known version and kind, every field in range, every unused field 0, data_len
 * PAGE_SIZE exactly when the message carries a page.  Whether it is legal now is for proto_step to say.
 */
bool wire_decode(const void *body, size_t body_len, size_t data_len, struct proto_msg *out);

#endif
