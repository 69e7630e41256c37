/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/err.h - how failures of the world travel: int, 0 or -errno, never ignored.
 *
 * Outputs come last and are written only on success.  The first detector logs the exact cause once;
 * callers pass the number on.  Guest and peer bytes never end here: decoders answer bool.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <errno.h>

#define MUST_CHECK __attribute__((warn_unused_result))

#endif
