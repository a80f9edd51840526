/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects keep the order of their keys; a key that comes again changes its value and not its place. Few members are
 * searched one by one, more have an index of hashes.
 */
#include "model/template_int.h"

struct val dict_new(struct run *r, uint32_t cap)
{
	struct dict *d = run_get(r, sizeof(*d));

	*d = (struct dict){ .cap = cap ? cap : 4 };
	d->at = run_get(r, d->cap * sizeof(*d->at));
	return (struct val){ .t = V_DICT, .dict = d };
}

static uint64_t hash_bytes(const char *p, size_t n)
{
	uint64_t h = 0x9e3779b97f4a7c15u ^ n;

	for (; n >= 8; p += 8, n -= 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		h = (h ^ w) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	for (; n; n--)
		h = (h ^ (unsigned char)*p++) * 0x100000001b3u;
	return h ^ h >> 29;
}

uint64_t val_hash(struct run *r, struct val v)
{
	uint64_t h = 1;

	switch (v.t) {
	case V_STR:
	case V_BIG:
		return hash_bytes(v.s, v.n);
	case V_BOOL:
	case V_INT:
		return hash_bytes((const char *)&v.i, sizeof(v.i));
	case V_FLOAT:
		if (v.d == (double)(int64_t)v.d && v.d < 9e18 && v.d > -9e18)
			return val_hash(r, val_int((int64_t)v.d));
		return hash_bytes((const char *)&v.d, sizeof(v.d));
	case V_TUPLE:
		for (uint32_t i = 0; i < v.n; i++)
			h = h * 0x9e3779b97f4a7c15u + val_hash(r, val_force(r, &v.at[i]));
		return h;
	default:
		return v.t;
	}
}

static void index_put(struct dict *d, uint64_t h, uint32_t place)
{
	uint32_t i = (uint32_t)h & d->mask;

	while (d->index[i])
		i = (i + 1) & d->mask;
	d->index[i] = place + 1;
}

static void index_make(struct run *r, struct dict *d)
{
	uint32_t size = 32;

	while (size < d->cap * 2)
		size *= 2;
	d->index = run_get(r, size * sizeof(*d->index));
	memset(d->index, 0, size * sizeof(*d->index));
	d->mask = size - 1;
	for (uint32_t i = 0; i < d->n; i++)
		index_put(d, val_hash(r, d->at[i].k), i);
}

static bool same_key(struct run *r, struct val a, struct val b)
{
	if (a.t == V_STR && b.t == V_STR)
		return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
	return val_equal(r, a, b);
}

struct val *dict_find(struct run *r, const struct dict *d, struct val key)
{
	if (!d->index) {
		for (uint32_t i = 0; i < d->n; i++)
			if (same_key(r, d->at[i].k, key))
				return &d->at[i].v;
		return NULL;
	}
	run_step(r, 1);
	for (uint32_t i = (uint32_t)val_hash(r, key) & d->mask; d->index[i]; i = (i + 1) & d->mask)
		if (same_key(r, d->at[d->index[i] - 1].k, key))
			return &d->at[d->index[i] - 1].v;
	return NULL;
}

struct val *dict_find_str(struct run *r, const struct dict *d, struct str key)
{
	return dict_find(r, d, val_strn(key.p, key.n));
}

void dict_put(struct run *r, struct dict *d, struct val key, struct val v)
{
	struct val *old = dict_find(r, d, key);

	if (old) {
		*old = v;
		return;
	}
	if (d->n == d->cap) {
		struct pair *at = run_get(r, 2 * d->cap * sizeof(*at));

		memcpy(at, d->at, d->n * sizeof(*at));
		d->at = at;
		d->cap *= 2;
		d->index = NULL;
	}
	d->at[d->n++] = (struct pair){ key, v };
	if (d->index)
		index_put(d, val_hash(r, key), d->n - 1);
	else if (d->n > DICT_PLAIN)
		index_make(r, d);
}
