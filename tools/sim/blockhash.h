/* SPDX-License-Identifier: Apache-2.0
 * vLLM's block hashes (--prefix-caching-hash-algo sha256_cbor): a chain in which each full block's digest is
 * SHA256(CBOR([parent digest, [token ids], extra keys or null])); the chain starts at SHA256(CBOR(seed text)).
 * Extra keys: the LoRA in every block, the cache salt in the first. vLLM 0.32 tags them, ["lora", name, path] and
 * ["cache_salt", salt]; older ones hash the bare name and salt. Events carry the bare form in either case.
 */
#ifndef SIM_BLOCKHASH_H
#define SIM_BLOCKHASH_H

#include <stdint.h>

#include "base/str.h"

#define BLOCKHASH_SEED "vllm-none-hash" /* what vLLM uses without PYTHONHASHSEED */

struct digest {
	uint8_t b[32];
};

void blockhash_none(struct str seed, struct digest *ret);

struct blockhash_extra {
	bool tagged;
	struct str lora, lora_path; /* {NULL, 0}: none */
	struct str salt;	    /* for the chain's first block only; {NULL, 0}: none */
};

void blockhash(const struct digest *parent, const uint32_t *tokens, uint32_t n, const struct blockhash_extra *x,
	       struct digest *ret);

/* What events carry: the digest's last eight bytes, big-endian. */
static inline uint64_t digest_id(const struct digest *d)
{
	uint64_t v = 0;

	for (int i = 24; i < 32; i++)
		v = v << 8 | d->b[i];
	return v;
}

#endif
