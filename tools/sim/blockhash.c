/* SPDX-License-Identifier: Apache-2.0 */
#include "blockhash.h"

#include "base/sha256.h"

/* A CBOR head (RFC 8949, shortest form) of major type <major>; returns its length. */
static size_t cbor_head(uint8_t *to, uint8_t major, uint64_t v)
{
	uint8_t m = (uint8_t)(major << 5);
	unsigned bytes;

	if (v < 24) {
		to[0] = m | (uint8_t)v;
		return 1;
	}
	bytes = v <= 0xff ? 1 : v <= 0xffff ? 2 : v <= 0xffffffff ? 4 : 8;
	to[0] = m | (bytes == 1 ? 24 : bytes == 2 ? 25 : bytes == 4 ? 26 : 27);
	for (unsigned i = 0; i < bytes; i++)
		to[1 + i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
	return 1 + bytes;
}

static void put_text(struct sha256 *s, struct str text)
{
	uint8_t head[9];

	sha256_update(s, head, cbor_head(head, 3, text.n));
	sha256_update(s, text.p, text.n);
}

/* The head of an array of <n>, and its first element. */
static void put_tag(struct sha256 *s, uint8_t n, struct str tag)
{
	uint8_t head = 0x80 | n;

	sha256_update(s, &head, 1);
	put_text(s, tag);
}

void blockhash_none(struct str seed, struct digest *ret)
{
	struct sha256 s;

	sha256_init(&s);
	put_text(&s, seed);
	sha256_final(&s, ret->b);
}

void blockhash(const struct digest *parent, const uint32_t *tokens, uint32_t n, const struct blockhash_extra *x,
	       struct digest *ret)
{
	uint8_t buf[512];
	struct sha256 s;
	size_t at;
	unsigned nextra = (x->lora.p ? 1 : 0) + (x->salt.p ? 1 : 0);

	sha256_init(&s);
	at = cbor_head(buf, 4, 3);
	at += cbor_head(buf + at, 2, sizeof(parent->b));
	sha256_update(&s, buf, at);
	sha256_update(&s, parent->b, sizeof(parent->b));
	at = cbor_head(buf, 4, n);
	for (uint32_t i = 0; i < n; i++) {
		if (at > sizeof(buf) - 18) {
			sha256_update(&s, buf, at);
			at = 0;
		}
		at += cbor_head(buf + at, 0, tokens[i]);
	}
	if (nextra)
		at += cbor_head(buf + at, 4, nextra);
	else
		buf[at++] = 0xf6;
	sha256_update(&s, buf, at);
	if (x->lora.p) {
		if (x->tagged)
			put_tag(&s, 3, STR("lora"));
		put_text(&s, x->lora);
		if (x->tagged)
			put_text(&s, x->lora_path);
	}
	if (x->salt.p) {
		if (x->tagged)
			put_tag(&s, 2, STR("cache_salt"));
		put_text(&s, x->salt);
	}
	sha256_final(&s, ret->b);
}
