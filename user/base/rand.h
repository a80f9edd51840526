/* SPDX-License-Identifier: Apache-2.0
 * Mixing and random numbers that are fast, not secret. For secrets: rand_secret.
 */
#ifndef KVS_BASE_RAND_H
#define KVS_BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

/* A bijection of 64-bit words that flips about half of the bits for each bit flipped (splitmix64's finaliser). */
static inline uint64_t mix64(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* One stream of pseudo-random numbers; any seed is good. Copy it to replay it. */
struct rng {
	uint64_t s;
};

static inline uint64_t rng_next(struct rng *r)
{
	r->s += UINT64_C(0x9e3779b97f4a7c15);
	return mix64(r->s);
}

/* Uniform in [0, n), n > 0 (bias below n / 2^64). */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64);
}

/* Uniform in [0, 1). */
static inline double rng_unit(struct rng *r)
{
	return (double)(rng_next(r) >> 11) * 0x1p-53;
}

/* A 64-bit hash of <n> bytes for hash tables whose keys nobody attacks. */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);

/* 64 bits from the kernel's generator. Never fails: it waits for entropy at boot. */
uint64_t rand_secret(void);

#endif
