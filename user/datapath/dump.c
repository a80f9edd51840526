/* SPDX-License-Identifier: Apache-2.0
 * Keys and values printed by their BTF: a map of any shape made of integers, enums, structs and arrays is readable.
 * struct kvs_addr prints as an address, members named pad are left out.
 */
#include <bpf/btf.h>
#include <stdio.h>
#include <string.h>

#include "datapath/datapath_int.h"

#define NAME_MAX_ 128
#define BYTES_MAX 64 /* of an array of bytes that is printed */

struct printer {
	const struct btf *btf;
	struct jw *w;	  /* JSON, or */
	struct buf *text; /* name=value, separated by blanks */
};

static void print(struct printer *p, uint32_t id, const uint8_t *data, const char *name);

static const struct btf_type *type_of(const struct btf *btf, uint32_t *id)
{
	const struct btf_type *t = btf__type_by_id(btf, *id);

	while (t && (btf_is_mod(t) || btf_is_typedef(t))) {
		*id = t->type;
		t = btf__type_by_id(btf, *id);
	}
	return t;
}

static const char *name_of(const struct btf *btf, uint32_t off)
{
	const char *s = btf__name_by_offset(btf, off);

	return s ? s : "";
}

static void print_u64(struct printer *p, uint64_t v, const char *name)
{
	if (p->w)
		jw_u64(p->w, v);
	else
		buf_printf(p->text, "%s%s=%llu", buf_len(p->text) ? " " : "", name, (unsigned long long)v);
}

static void print_i64(struct printer *p, int64_t v, const char *name)
{
	if (p->w)
		jw_i64(p->w, v);
	else
		buf_printf(p->text, "%s%s=%lld", buf_len(p->text) ? " " : "", name, (long long)v);
}

static void print_str(struct printer *p, const char *s, const char *name)
{
	if (p->w)
		jw_str(p->w, s);
	else
		buf_printf(p->text, "%s%s=%s", buf_len(p->text) ? " " : "", name, s);
}

static uint64_t word(const uint8_t *data, uint32_t size)
{
	uint64_t v = 0;

	for (uint32_t i = 0; i < size && i < 8; i++)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		v |= (uint64_t)data[i] << 8 * i;
#else
		v = v << 8 | data[i];
#endif
	return v;
}

static void print_int(struct printer *p, const struct btf_type *t, const uint8_t *data, const char *name)
{
	uint64_t v = word(data, t->size);

	if (!(btf_int_encoding(t) & BTF_INT_SIGNED))
		print_u64(p, v, name);
	else
		print_i64(p, t->size < 8 ? (int64_t)(v << (64 - 8 * t->size)) >> (64 - 8 * t->size) : (int64_t)v, name);
}

static void print_enum(struct printer *p, const struct btf_type *t, const uint8_t *data, const char *name)
{
	const struct btf_enum *e = btf_enum(t);
	int32_t v = (int32_t)word(data, t->size);

	for (unsigned i = 0; i < btf_vlen(t); i++)
		if (e[i].val == v) {
			print_str(p, name_of(p->btf, e[i].name_off), name);
			return;
		}
	print_i64(p, v, name);
}

static void print_struct(struct printer *p, const struct btf_type *t, const uint8_t *data, const char *name)
{
	const struct btf_member *m = btf_members(t);

	if (strcmp(name_of(p->btf, t->name_off), "kvs_addr") == 0) {
		char ip[NET_NAME_MAX];

		addr_format((const struct kvs_addr *)data, ip);
		print_str(p, ip, name);
		return;
	}
	if (p->w)
		jw_obj(p->w);
	/* Of a union the first member says it all. */
	for (unsigned i = 0; i < btf_vlen(t) && (!i || btf_is_struct(t)); i++) {
		const char *member = name_of(p->btf, m[i].name_off);
		char full[NAME_MAX_];

		if (strcmp(member, "pad") == 0)
			continue;
		if (p->w)
			jw_key(p->w, member);
		snprintf(full, sizeof(full), "%.60s%s%.60s", name, *name ? "." : "", member);
		print(p, m[i].type, data + btf_member_bit_offset(t, i) / 8, full);
	}
	if (p->w)
		jw_end_obj(p->w);
}

static void print_array(struct printer *p, const struct btf_type *t, const uint8_t *data, const char *name)
{
	const struct btf_array *a = btf_array(t);
	uint32_t id = a->type;
	const struct btf_type *e = type_of(p->btf, &id);
	int64_t size = btf__resolve_size(p->btf, id);

	if (!e || size <= 0)
		return;
	if (btf_is_int(e) && size == 1 && strcmp(name_of(p->btf, e->name_off), "char") == 0) {
		char s[256];

		snprintf(s, sizeof(s), "%.*s", (int)a->nelems, (const char *)data);
		print_str(p, s, name);
		return;
	}
	if (btf_is_int(e) && size == 1 && a->nelems > BYTES_MAX) {
		char s[32];

		snprintf(s, sizeof(s), "(%u bytes)", a->nelems);
		print_str(p, s, name);
		return;
	}
	if (p->w)
		jw_arr(p->w);
	for (uint32_t i = 0; i < a->nelems; i++) {
		char full[NAME_MAX_];

		snprintf(full, sizeof(full), "%.100s[%u]", name, i);
		print(p, id, data + i * (uint32_t)size, full);
	}
	if (p->w)
		jw_end_arr(p->w);
}

static void print(struct printer *p, uint32_t id, const uint8_t *data, const char *name)
{
	const struct btf_type *t = type_of(p->btf, &id);

	if (t && btf_is_int(t))
		print_int(p, t, data, *name ? name : "key");
	else if (t && btf_is_enum(t))
		print_enum(p, t, data, *name ? name : "key");
	else if (t && btf_is_composite(t))
		print_struct(p, t, data, name);
	else if (t && btf_is_array(t))
		print_array(p, t, data, name);
	else if (p->w)
		jw_null(p->w);
}

void btf_print(const struct btf *btf, uint32_t type, const void *data, struct jw *w, struct buf *text)
{
	struct printer p = { btf, w, text };

	print(&p, type, data, "");
}
