/* SPDX-License-Identifier: Apache-2.0
 * SHA-1 (FIPS 180-4), which names git's objects. Good against damage, not against malice.
 */
#ifndef KVS_BASE_SHA1_H
#define KVS_BASE_SHA1_H

#include <stddef.h>
#include <stdint.h>

struct sha1 {
	uint32_t h[5];
	uint64_t len;
	uint8_t block[64];
};

void sha1_init(struct sha1 *s);
void sha1_update(struct sha1 *s, const void *p, size_t n);
void sha1_final(struct sha1 *s, uint8_t out[20]);

#endif
