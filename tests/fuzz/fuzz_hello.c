/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hello.c - interconnect/core/hello: a stream of handshake records.  Input: the stream. */
#include "interconnect/core/hello.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ic_hello last = { .kind = IC_HELLO };

	while (len > 0) {
		struct ic_hello h;
		enum ic_refusal why = 0;
		uint8_t again[IC_HELLO_MAX], text[IC_HELLO_SIGNED_MAX];
		int n = ic_hello_decode(data, len, &h, &why);

		if (n < 0)
			ASSERT(why == IC_REFUSED_GARBAGE || why == IC_REFUSED_VERSION);
		if (n <= 0) {
			ASSERT(n < 0 || len < IC_HELLO_MAX);
			break;
		}
		ASSERT((size_t)n <= len && n <= (int)IC_HELLO_MAX);
		ASSERT(h.kind >= IC_HELLO && h.kind <= IC_READY);
		ASSERT(ic_hello_encode(&h, again) == (size_t)n && !memcmp(again, data, (size_t)n));
		ASSERT(ic_hello_signed('A', &last, &h, text) <= sizeof(text));
		ASSERT(ic_refusal_text(h.kind == IC_REFUSE ? h.why : 0));
		last = h;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}
