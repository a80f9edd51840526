/* SPDX-License-Identifier: Apache-2.0
 * A cursor over msgpack that believes nothing: each length is held against what is there before it is used, and nothing
 * is allocated. Private to events/; inline, as it runs once for each token.
 *
 * Source of the format: msgpack's specification (spec.md of msgpack/msgpack).
 */
#ifndef KVS_EVENTS_MSGPACK_H
#define KVS_EVENTS_MSGPACK_H

#include <errno.h>
#include <stdint.h>

#include "base/str.h"

#define MP_DEPTH_MAX 32

struct mp_cur {
	const uint8_t *p, *end;
};

enum mp_kind { MP_NIL, MP_BOOL, MP_UINT, MP_INT, MP_FLOAT, MP_STR, MP_BIN, MP_ARRAY, MP_MAP, MP_EXT };

struct mp_item {
	enum mp_kind kind;
	uint64_t u;   /* UINT; INT as two's complement; count of ARRAY, MAP; length of STR, BIN, EXT */
	double f;     /* FLOAT */
	struct str s; /* STR, BIN */
};

static inline uint64_t mp_be(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/* One object's head and, for strings and numbers, all of it. Containers' elements follow at the cursor. */
static inline int mp_next_bytes(struct mp_cur *c, struct mp_item *it, enum mp_kind kind, uint64_t n)
{
	if ((uint64_t)(c->end - c->p) < n)
		return -EBADMSG;
	it->kind = kind;
	it->u = n;
	it->s = (struct str){ (const char *)c->p, n };
	c->p += n;
	return 0;
}

static inline int mp_next_container(struct mp_cur *c, struct mp_item *it, enum mp_kind kind, uint64_t n)
{
	/* Each element takes a byte at least. */
	if ((uint64_t)(c->end - c->p) < (kind == MP_MAP ? 2 * n : n))
		return -EBADMSG;
	it->kind = kind;
	it->u = n;
	return 0;
}

static inline int mp_next_number(struct mp_cur *c, struct mp_item *it, uint8_t tag)
{
	unsigned n = 1u << (tag & 3);

	if (tag == 0xca)
		n = 4;
	else if (tag == 0xcb)
		n = 8;
	if (c->end - c->p < (ptrdiff_t)n)
		return -EBADMSG;
	it->u = mp_be(c->p, n);
	c->p += n;
	if (tag == 0xca) {
		union {
			uint32_t u;
			float f;
		} x = { .u = (uint32_t)it->u };

		it->f = (double)x.f;
		it->kind = MP_FLOAT;
	} else if (tag == 0xcb) {
		union {
			uint64_t u;
			double f;
		} x = { .u = it->u };

		it->f = x.f;
		it->kind = MP_FLOAT;
	} else if (tag < 0xd0) {
		it->kind = MP_UINT;
	} else {
		unsigned shift = 64 - 8 * n;

		it->u = (uint64_t)((int64_t)(it->u << shift) >> shift);
		it->kind = (int64_t)it->u < 0 ? MP_INT : MP_UINT;
	}
	return 0;
}

static inline int mp_next_sized(struct mp_cur *c, struct mp_item *it, uint8_t tag)
{
	static const struct {
		enum mp_kind kind;
		uint8_t width, extra; /* bytes of length; ext's type byte */
	} rows[] = {
		[0xc4 - 0xc4] = { MP_BIN, 1, 0 },   [0xc5 - 0xc4] = { MP_BIN, 2, 0 },
		[0xc6 - 0xc4] = { MP_BIN, 4, 0 },   [0xc7 - 0xc4] = { MP_EXT, 1, 1 },
		[0xc8 - 0xc4] = { MP_EXT, 2, 1 },   [0xc9 - 0xc4] = { MP_EXT, 4, 1 },
		[0xd9 - 0xc4] = { MP_STR, 1, 0 },   [0xda - 0xc4] = { MP_STR, 2, 0 },
		[0xdb - 0xc4] = { MP_STR, 4, 0 },   [0xdc - 0xc4] = { MP_ARRAY, 2, 0 },
		[0xdd - 0xc4] = { MP_ARRAY, 4, 0 }, [0xde - 0xc4] = { MP_MAP, 2, 0 },
		[0xdf - 0xc4] = { MP_MAP, 4, 0 },
	};
	unsigned width = rows[tag - 0xc4].width;
	enum mp_kind kind = rows[tag - 0xc4].kind;
	uint64_t n;

	if (c->end - c->p < (ptrdiff_t)width)
		return -EBADMSG;
	n = mp_be(c->p, width);
	c->p += width;
	if (kind == MP_ARRAY || kind == MP_MAP)
		return mp_next_container(c, it, kind, n);
	return mp_next_bytes(c, it, kind, n + rows[tag - 0xc4].extra);
}

static inline int mp_next(struct mp_cur *c, struct mp_item *it)
{
	uint8_t tag;

	if (c->p == c->end)
		return -EBADMSG;
	tag = *c->p++;
	if (tag < 0x80) {
		it->kind = MP_UINT;
		it->u = tag;
		return 0;
	}
	if (tag >= 0xe0) {
		it->kind = MP_INT;
		it->u = (uint64_t)(int64_t)(int8_t)tag;
		return 0;
	}
	if (tag < 0x90)
		return mp_next_container(c, it, MP_MAP, tag & 0x0f);
	if (tag < 0xa0)
		return mp_next_container(c, it, MP_ARRAY, tag & 0x0f);
	if (tag < 0xc0)
		return mp_next_bytes(c, it, MP_STR, tag & 0x1f);
	if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3) {
		it->kind = tag == 0xc0 ? MP_NIL : MP_BOOL;
		it->u = tag & 1;
		return 0;
	}
	if (tag == 0xc1)
		return -EBADMSG;
	if (tag >= 0xca && tag <= 0xd3)
		return mp_next_number(c, it, tag);
	if (tag >= 0xd4 && tag <= 0xd8)
		return mp_next_bytes(c, it, MP_EXT, (UINT64_C(1) << (tag - 0xd4)) + 1);
	return mp_next_sized(c, it, tag);
}

/* Bytes of the non-negative integer at the cursor if it is one of those that nearly everything is made of, else 0. */
static inline unsigned mp_number_len(const struct mp_cur *c)
{
	size_t left = (size_t)(c->end - c->p);
	unsigned len;

	if (!left)
		return 0;
	if (*c->p < 0x80)
		return 1;
	if (*c->p < 0xcc || *c->p > 0xcf)
		return 0;
	len = 1 + (1u << (*c->p - 0xcc));
	return len <= left ? len : 0;
}

/* Over one object with all that it holds. */
static inline int mp_skip(struct mp_cur *c, unsigned depth)
{
	struct mp_item it;
	int r = mp_next(c, &it);

	if (r || (it.kind != MP_ARRAY && it.kind != MP_MAP))
		return r;
	if (!depth)
		return -EBADMSG;
	for (uint64_t n = it.kind == MP_MAP ? 2 * it.u : it.u; n; n--) {
		unsigned len = mp_number_len(c);

		if (len) {
			c->p += len;
			continue;
		}
		r = mp_skip(c, depth - 1);
		if (r)
			return r;
	}
	return 0;
}

/* The elements of a container whose head was read. */
static inline void mp_skip_rest(struct mp_cur *c, const struct mp_item *it)
{
	uint64_t n = it->kind == MP_MAP ? 2 * it->u : it->kind == MP_ARRAY ? it->u : 0;

	while (n--)
		mp_skip(c, MP_DEPTH_MAX);
}

#endif
