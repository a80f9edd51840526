/* SPDX-License-Identifier: Apache-2.0
 * One KV event of a msgpack batch: an array or a map, its fields in whatever order they come. The structure is known to
 * be sound (decode.c); what a field holds is not.
 */
#include "events/decode.h"

enum field {
	F_NONE,
	F_HASHES,
	F_PARENT,
	F_TOKENS,
	F_BLOCK_SIZE,
	F_LORA_ID,
	F_MEDIUM,
	F_LORA_NAME,
	F_EXTRA,
	F_GROUP,
	F_KIND,
	F_LOCALITY,
	F_SALT,
	F_TYPE,
};

static const struct {
	struct str key;
	enum field f;
} field_keys[] = {
	{ { "type", 4 }, F_TYPE },
	{ { "block_hashes", 12 }, F_HASHES },
	{ { "parent_block_hash", 17 }, F_PARENT },
	{ { "token_ids", 9 }, F_TOKENS },
	{ { "block_size", 10 }, F_BLOCK_SIZE },
	{ { "lora_id", 7 }, F_LORA_ID },
	{ { "medium", 6 }, F_MEDIUM },
	{ { "lora_name", 9 }, F_LORA_NAME },
	{ { "extra_keys", 10 }, F_EXTRA },
	{ { "group_idx", 9 }, F_GROUP },
	{ { "kv_cache_spec_kind", 18 }, F_KIND },
	{ { "locality", 8 }, F_LOCALITY },
	{ { "cache_salt", 10 }, F_SALT },
};

/* Fields by place behind the tag, in events that are arrays. */
static const uint8_t stored_fields[] = {
	F_HASHES,    F_PARENT, F_TOKENS, F_BLOCK_SIZE, F_LORA_ID,	    F_MEDIUM,
	F_LORA_NAME, F_EXTRA,  F_GROUP,	 F_KIND,       F_NONE /* window */, F_LOCALITY
};
static const uint8_t removed_fields[] = { F_HASHES, F_MEDIUM, F_GROUP, F_LOCALITY };

static enum kv_type type_of(struct str s)
{
	if (str_eq(s, STR("BlockStored")))
		return KV_STORED;
	if (str_eq(s, STR("BlockRemoved")))
		return KV_REMOVED;
	if (str_eq(s, STR("AllBlocksCleared")))
		return KV_CLEARED;
	return KV_UNKNOWN;
}

struct reading {
	struct kv_event e;
	struct kv_blocks *m;
	unsigned seen; /* bits of enum field: present and of the right type */
	bool bad;      /* a required field is not what it must be */
	int err;
};

static bool hash_of(const struct mp_item *it, uint64_t *ret)
{
	size_t n;

	if (it->kind == MP_UINT || it->kind == MP_INT) {
		*ret = it->u;
		return true;
	}
	if (it->kind != MP_BIN && it->kind != MP_STR)
		return false;
	n = it->s.n;
	if (!n)
		return false;
	*ret = n > 8 ? mp_be((const uint8_t *)it->s.p + n - 8, 8) : mp_be((const uint8_t *)it->s.p, (unsigned)n);
	return true;
}

static void read_hashes(struct reading *r, struct mp_cur *c, const struct mp_item *head)
{
	struct kv_blocks *m = r->m;
	struct mp_item it;

	m->nhashes = 0;
	if (head->kind != MP_ARRAY || head->u > HASHES_MAX) {
		mp_skip_rest(c, head);
		r->bad = true;
		return;
	}
	for (uint64_t i = 0; i < head->u; i++) {
		r->err = blocks_hash_room(m);
		if (r->err || mp_next(c, &it))
			return;
		if (it.kind == MP_ARRAY || it.kind == MP_MAP)
			mp_skip_rest(c, &it);
		if (!hash_of(&it, &m->hashes[m->nhashes++]))
			r->bad = true;
	}
	r->seen |= 1u << F_HASHES;
}

static bool token_of(struct mp_cur *c, struct mp_item *it, uint32_t *ret)
{
	struct mp_item first = { 0 };

	/* Speculative decoding of SGLang's kind keeps pairs [t, t+1]; the chain is of their first halves. */
	if (it->kind == MP_ARRAY && it->u) {
		uint64_t rest = it->u - 1;

		if (mp_next(c, &first))
			return false;
		mp_skip_rest(c, &first);
		while (rest--)
			mp_skip(c, MP_DEPTH_MAX);
		it = &first;
	} else {
		mp_skip_rest(c, it);
	}
	*ret = (uint32_t)it->u;
	return it->kind == MP_UINT && it->u <= UINT32_MAX;
}

static void read_tokens(struct reading *r, struct mp_cur *c, const struct mp_item *head)
{
	struct kv_blocks *m = r->m;
	struct mp_item it;
	unsigned len;

	m->ntokens = 0;
	if (head->kind != MP_ARRAY || head->u > TOKENS_MAX) {
		mp_skip_rest(c, head);
		r->bad = true;
		return;
	}
	for (uint64_t i = 0; i < head->u; i++) {
		r->err = blocks_token_room(m);
		if (r->err)
			return;
		len = mp_number_len(c);
		if (len && len <= 5) {
			m->tokens[m->ntokens++] = len == 1 ? *c->p : (uint32_t)mp_be(c->p + 1, len - 1);
			c->p += len;
			continue;
		}
		if (mp_next(c, &it))
			return;
		if (it.kind == MP_UINT && it.u <= UINT32_MAX)
			m->tokens[m->ntokens++] = (uint32_t)it.u;
		else if (!token_of(c, &it, &m->tokens[m->ntokens++]))
			r->bad = true;
	}
	r->seen |= 1u << F_TOKENS;
}

static void add_extra(struct reading *r, struct str s, uint32_t block)
{
	struct kv_event *e = &r->e;

	for (unsigned i = 0; i < e->nextra; i++)
		if (str_eq(e->extra[i], s))
			return;
	if (e->nextra == KV_EXTRA_MAX) {
		r->bad = true; /* its namespace could not be told from others */
		return;
	}
	e->extra[e->nextra] = s;
	e->extra_at[e->nextra++] = block;
}

/* One block's entry: strings (LoRA name, salt, media), bins (digest of embeddings), [media, offset]. */
static void read_extra_entry(struct reading *r, struct mp_cur *c, uint32_t block)
{
	struct mp_item it, id, off;

	if (mp_next(c, &it))
		return;
	if (it.kind == MP_STR || it.kind == MP_BIN) {
		add_extra(r, it.s, block);
		return;
	}
	if (it.kind != MP_ARRAY || it.u < 2) {
		mp_skip_rest(c, &it);
		return;
	}
	if (mp_next(c, &id))
		return;
	mp_skip_rest(c, &id);
	if (mp_next(c, &off))
		return;
	mp_skip_rest(c, &off);
	for (uint64_t i = 2; i < it.u; i++)
		mp_skip(c, MP_DEPTH_MAX);
	/* A negative offset: the item began in an earlier block, whose namespace the chain has inherited. */
	if ((id.kind == MP_STR || id.kind == MP_BIN) && off.kind != MP_INT)
		add_extra(r, id.s, block);
}

static void read_extra(struct reading *r, struct mp_cur *c, const struct mp_item *head)
{
	struct mp_item it;

	r->e.nextra = 0;
	if (head->kind != MP_ARRAY) {
		mp_skip_rest(c, head);
		return;
	}
	for (uint64_t b = 0; b < head->u; b++) {
		if (mp_next(c, &it))
			return;
		if (it.kind != MP_ARRAY) {
			mp_skip_rest(c, &it);
			continue;
		}
		for (uint64_t i = 0; i < it.u; i++)
			read_extra_entry(r, c, (uint32_t)b);
	}
}

/* SGLang has put a map of metadata where vLLM has the LoRA's name. */
static void read_lora(struct reading *r, struct mp_cur *c, const struct mp_item *head)
{
	struct mp_item k, v;

	if (head->kind == MP_STR)
		r->e.lora_name = head->s;
	if (head->kind != MP_MAP) {
		mp_skip_rest(c, head);
		return;
	}
	for (uint64_t i = 0; i < head->u; i++) {
		if (mp_next(c, &k))
			return;
		mp_skip_rest(c, &k);
		if (mp_next(c, &v))
			return;
		mp_skip_rest(c, &v);
		if (k.kind == MP_STR && v.kind == MP_STR && str_eq(k.s, STR("cache_salt")))
			r->e.salt = v.s;
	}
}

static void read_scalar(struct reading *r, enum field f, const struct mp_item *it)
{
	struct kv_event *e = &r->e;
	bool integer = it->kind == MP_UINT || it->kind == MP_INT;
	struct str s = it->kind == MP_STR ? it->s : (struct str){ 0 };

	switch (f) {
	case F_PARENT:
		e->has_parent = hash_of(it, &e->parent) && e->parent; /* 0 is how some write "none" */
		if (!e->has_parent && it->kind != MP_NIL && !integer)
			r->bad = true;
		break;
	case F_BLOCK_SIZE:
		if (it->kind != MP_UINT || it->u > TOKENS_MAX) {
			r->bad = true;
			break;
		}
		e->block_size = (uint32_t)it->u;
		r->seen |= 1u << f;
		break;
	case F_LORA_ID:
		e->lora_id = integer ? (int64_t)it->u : 0;
		break;
	case F_MEDIUM:
		e->medium = s;
		break;
	case F_GROUP:
		e->has_group = integer;
		e->group = (int64_t)it->u;
		break;
	case F_KIND:
		e->kind = s;
		break;
	case F_LOCALITY:
		e->locality = s;
		break;
	case F_SALT:
		e->salt = s;
		break;
	case F_TYPE:
		if (s.p) {
			e->type = type_of(s);
			r->seen |= 1u << f;
		}
		break;
	default:
		break;
	}
}

static void read_field(struct reading *r, struct mp_cur *c, enum field f)
{
	struct mp_item it;

	if (mp_next(c, &it)) {
		r->bad = true;
		return;
	}
	switch (f) {
	case F_HASHES:
		read_hashes(r, c, &it);
		break;
	case F_TOKENS:
		read_tokens(r, c, &it);
		break;
	case F_EXTRA:
		read_extra(r, c, &it);
		break;
	case F_LORA_NAME:
		read_lora(r, c, &it);
		break;
	default:
		mp_skip_rest(c, &it);
		read_scalar(r, f, &it);
	}
}

static void read_array(struct reading *r, struct mp_cur *c, uint64_t n)
{
	const uint8_t *fields = NULL;
	size_t nfields = 0;

	read_field(r, c, F_TYPE);
	if (r->e.type == KV_STORED) {
		fields = stored_fields;
		nfields = sizeof(stored_fields);
	} else if (r->e.type == KV_REMOVED) {
		fields = removed_fields;
		nfields = sizeof(removed_fields);
	}
	for (uint64_t i = 0; i + 1 < n && !r->err; i++)
		read_field(r, c, i < nfields ? (enum field)fields[i] : F_NONE);
}

static void read_map(struct reading *r, struct mp_cur *c, uint64_t n)
{
	for (uint64_t i = 0; i < n && !r->err; i++) {
		enum field f = F_NONE;
		struct mp_item k;

		if (mp_next(c, &k))
			return;
		mp_skip_rest(c, &k);
		for (size_t j = 0; k.kind == MP_STR && j < sizeof(field_keys) / sizeof(field_keys[0]); j++)
			if (str_eq(field_keys[j].key, k.s)) {
				f = field_keys[j].f;
				break;
			}
		read_field(r, c, f);
	}
}

bool kv_kind_is_main(struct str kind)
{
	return str_eq(kind, STR("full_attention")) || str_eq(kind, STR("mla_attention")) ||
	       str_eq(kind, STR("sink_full_attention"));
}

static bool sound(struct reading *r)
{
	struct kv_event *e = &r->e;
	unsigned need = 1u << F_TYPE, w = 0;

	if (e->type == KV_STORED)
		need |= 1u << F_HASHES | 1u << F_TOKENS | 1u << F_BLOCK_SIZE;
	else if (e->type == KV_REMOVED)
		need |= 1u << F_HASHES;
	if (r->bad || (r->seen & need) != need)
		return false;
	e->hashes = r->m->hashes;
	e->nhashes = r->m->nhashes;
	if (e->type != KV_STORED) {
		e->ntokens = 0;
		return true;
	}
	e->tokens = r->m->tokens;
	e->ntokens = e->block_size ? r->m->ntokens : 0;
	if (e->has_parent && e->nhashes && e->hashes[0] == e->parent)
		return false;
	/* Each block repeats the LoRA's name among its extra keys. */
	for (unsigned i = 0; i < e->nextra; i++)
		if (!e->lora_name.p || !str_eq(e->extra[i], e->lora_name)) {
			e->extra[w] = e->extra[i];
			e->extra_at[w++] = e->extra_at[i];
		}
	e->nextra = w;
	if (!e->ntokens || e->ntokens == (uint64_t)e->nhashes * e->block_size)
		return true;
	return e->has_group && !kv_kind_is_main(e->kind);
}

int event_decode(struct mp_cur *c, struct kv_blocks *m, struct kv_batch_info *info, bool wrapped,
		 void (*event)(void *arg, const struct kv_event *e), void *arg)
{
	struct reading r = { .m = m };
	struct mp_item it;

	if (mp_next(c, &it))
		return -EBADMSG;
	if (it.kind == MP_BIN && !wrapped) {
		struct mp_cur in = { (const uint8_t *)it.s.p, (const uint8_t *)it.s.p + it.s.n };
		struct mp_cur probe = in;

		if (!mp_skip(&probe, MP_DEPTH_MAX))
			return event_decode(&in, m, info, true, event, arg);
		info->bad_events++;
		return 0;
	}
	m->nhashes = m->ntokens = 0;
	if (it.kind == MP_MAP)
		read_map(&r, c, it.u);
	else if (it.kind == MP_ARRAY && it.u)
		read_array(&r, c, it.u);
	else
		r.bad = true;
	if (r.err)
		return r.err;
	if (!r.bad && (r.seen & 1u << F_TYPE) && r.e.type == KV_UNKNOWN)
		info->unknown_events++;
	else if (!sound(&r))
		info->bad_events++;
	else
		event(arg, &r.e);
	return 0;
}
