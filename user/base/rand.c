/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rand.h"

#include <string.h>
#include <sys/random.h>

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
	const unsigned char *s = p;
	uint64_t h = mix64(seed ^ n);
	uint64_t w;

	for (; n >= 8; s += 8, n -= 8) {
		memcpy(&w, s, 8);
		h = mix64(h ^ w) + UINT64_C(0x9e3779b97f4a7c15);
	}
	w = 0;
	if (n)
		memcpy(&w, s, n);
	return mix64(h ^ w);
}

uint64_t rand_secret(void)
{
	uint64_t v;

	while (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
		;
	return v;
}
