/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/assert.h - our own bugs stop the process, in release builds too.
 *
 * ASSERT prints file, line, condition and aborts.  Only for conditions that no guest, peer, file or
 * host can bring about.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

/*
 * A failed assertion calls each `fn(arg)` before the process ends: for state that tells how it came about.  fn may be
 * called by any thread, with any lock held: it takes none.  Up to 8, further ones are not called.
 */
void assert_last_words(void (*fn)(void *arg), void *arg);
/* No longer: before arg goes away. */
void assert_last_words_end(void *arg);

_Noreturn void assert_failed(const char *cond, const char *file, int line, const char *func);

#define ASSERT(cond) \
	((cond) ? (void)0 : assert_failed(#cond, __FILE__, __LINE__, __func__))
#define STATIC_ASSERT(cond, text) _Static_assert(cond, text)

#endif
