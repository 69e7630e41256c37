/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/guest/work.c - the two plain loads that engines are timed with: an integer loop and a memory copy.
 *
 * Use       work int MILLIONS | work copy MIBYTES; prints one RESULT line with milliseconds.  The result of the
 *           work is printed too, so that no compiler and no engine can leave it out.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COPY_BYTES (4u << 20)

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static uint64_t work_int(uint64_t rounds)
{
	uint64_t x = 88172645463325252ull, sum = 0;

	for (uint64_t i = 0; i < rounds; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (x & 1)
			sum += x;
		else
			sum ^= i;
	}
	return sum;
}

static uint64_t work_copy(uint64_t mib)
{
	uint64_t *a = malloc(COPY_BYTES), *b = malloc(COPY_BYTES);
	uint64_t sum = 0;

	if (!a || !b)
		exit(2);
	for (uint64_t i = 0; i < COPY_BYTES / 8; i++)
		a[i] = i;
	for (uint64_t done = 0; done < mib; done += COPY_BYTES >> 20) {
		for (uint64_t i = 0; i < COPY_BYTES / 8; i++)
			b[i] = a[i] + done;
		sum += b[done % (COPY_BYTES / 8)];
		memcpy(a, b, COPY_BYTES);
	}
	free(a);
	free(b);
	return sum;
}

int main(int argc, char **argv)
{
	uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 0) : 0, sum;
	double start = now_ms();

	if (n && strcmp(argv[1], "int") == 0) {
		sum = work_int(n * 1000000u);
	} else if (n && strcmp(argv[1], "copy") == 0) {
		sum = work_copy(n);
	} else {
		fprintf(stderr, "use: work int MILLIONS | work copy MIBYTES\n");
		return 2;
	}
	printf("RESULT %s_ms=%.1f\nRESULT %s_sum=%llx\n", argv[1], now_ms() - start, argv[1],
	       (unsigned long long)sum);
	return 0;
}
