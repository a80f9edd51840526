/* SPDX-License-Identifier: Apache-2.0
 * KV events of TensorRT-LLM as its server hands them out over HTTP: a JSON list that empties the engine's buffer.
 *
 *   [{"event_id": N, "data": {"type": "stored", "parent_hash": H, "blocks": [{"block_hash": H, "tokens": [{"token_id":
 * T, "token_extra_id": X}, …], "cache_level": L}, …]}, "window_size": W, "attention_dp_rank": R}, …]
 *
 * A block lies in one place at a time: "updated" moves it (here: stored there, removed here), "removed" takes it away
 * from wherever it is. "created" is what a new cache begins with. What an event does not have is absent: members have
 * been added over time, some beside "data" and some in it, so both are looked at.
 *
 * Only full blocks are indexed. The last block of a chain may be partial, and no event says how large a full one is:
 * sizes are powers of two, so the largest such number of tokens seen is taken for it.
 *
 * Nothing is believed before the whole text has been walked; memory grows with the elements really read.
 */
#include "base/rand.h"
#include "events/blocks.h"
#include "events/events_int.h"
#include "http/json.h"

#define BLOCK_MAX 1024

struct member {
	const char *key;
	struct json_val *at;
	struct str *raw; /* NULL, or the text of the whole value */
};

#define MEMBERS_END { NULL, NULL, NULL }

/* The members of an open object, into the places of <m>; others are walked over. */
static int read_members(struct json *j, const struct member *m)
{
	struct json_val k, v;
	struct str raw;
	int r;

	while ((r = json_member(j, &k, &v)) > 0) {
		const struct member *i = m;

		while (i->key && !json_str_is(&k, str_of(i->key)))
			i++;
		if (json_skip(j, &v, &raw))
			return -EBADMSG;
		if (!i->key)
			continue;
		*i->at = v;
		if (i->raw)
			*i->raw = raw;
	}
	return r;
}

static bool absent(const struct json_val *v)
{
	return !v->raw.p || v->kind == JSON_T_NULL;
}

static bool hash_of(const struct json_val *v, uint64_t *ret)
{
	struct json_val abs = *v;

	if (v->kind == JSON_T_STR && v->raw.n) {
		*ret = hash_bytes(v->raw.p, v->raw.n, 0);
		return true;
	}
	if (v->kind != JSON_T_NUM)
		return false;
	if (*v->raw.p != '-')
		return !json_u64(v, ret);
	abs.raw.p++;
	abs.raw.n--;
	if (json_u64(&abs, ret))
		return false;
	*ret = -*ret;
	return true;
}

/* False: there is a value, and it is no such number. */
static bool number_of(const struct json_val *v, uint64_t max, uint64_t *ret)
{
	if (!v->raw.p || v->kind == JSON_T_NULL)
		return true;
	return v->kind == JSON_T_NUM && !json_u64(v, ret) && *ret <= max;
}

int trt_poll(struct str body, void (*one)(void *arg, uint64_t id, uint64_t rank, struct str text), void *arg,
	     unsigned *ret_bad)
{
	struct json_val v, id, rank;
	struct member m[] = { { "event_id", &id, NULL }, { "attention_dp_rank", &rank, NULL }, MEMBERS_END };
	struct json j, e;
	struct str raw;

	*ret_bad = 0;
	json_init(&j, body);
	if (json_value(&j, &v) || v.kind != JSON_T_ARR || json_skip(&j, &v, NULL) || json_end(&j))
		return -EBADMSG;
	json_init(&j, body);
	(void)json_value(&j, &v);
	while (json_element(&j, &v) > 0) {
		uint64_t n = 0, at = 0;

		(void)json_skip(&j, &v, &raw);
		id = rank = (struct json_val){ 0 };
		json_init(&e, raw);
		if (json_value(&e, &v) || v.kind != JSON_T_OBJ || read_members(&e, m) || absent(&id) ||
		    !number_of(&id, INT64_MAX, &n) || !number_of(&rank, POD_RANKS_MAX - 1, &at)) {
			++*ret_bad;
			continue;
		}
		one(arg, n, at, raw);
	}
	return 0;
}

/* --- one event --- */

struct decoding {
	struct kv_event e; /* what all runs of this event share */
	struct trt_state *st;
	struct kv_batch_info *info;
	void (*event)(void *arg, const struct kv_event *e);
	void *arg;
	struct kv_blocks b;
	uint64_t last; /* hash of the block before */
	bool has_last;
	bool cut; /* a partial block was the chain's end */
	/* the blocks that are not handed out yet: of one level */
	unsigned first_hash, first_token;
	uint64_t level;
	struct buf name, salt; /* what had to be unescaped */
	int err;
};

static const struct str level_names[] = { { "GPU", 3 }, { "CPU", 3 }, { "DISK", 4 } };

static struct str level_of(uint64_t level)
{
	return level_names[level < 2 ? level : 2];
}

static void flush(struct decoding *d)
{
	struct kv_event *e = &d->e;

	e->nhashes = d->b.nhashes - d->first_hash;
	e->ntokens = d->b.ntokens - d->first_token;
	e->medium = level_of(d->level);
	if (e->nhashes) {
		e->hashes = d->b.hashes + d->first_hash;
		e->tokens = e->ntokens ? d->b.tokens + d->first_token : NULL;
		d->event(d->arg, e);
	}
	d->first_hash = d->b.nhashes;
	d->first_token = d->b.ntokens;
	e->nextra = 0;
}

static bool add_extra(struct decoding *d, struct str s)
{
	struct kv_event *e = &d->e;

	if (e->nextra == KV_EXTRA_MAX)
		return false;
	e->extra_at[e->nextra] = d->b.nhashes - d->first_hash;
	e->extra[e->nextra++] = s;
	return true;
}

/* Tokens are objects; their extra id is not 0 where the token stands for something else (prompt tuning, media). */
static bool read_tokens(struct decoding *d, struct str text)
{
	struct json_val v, id, extra;
	struct member m[] = { { "token_id", &id, NULL }, { "token_extra_id", &extra, NULL }, MEMBERS_END };
	struct str last = { NULL, 0 };
	struct json j;

	json_init(&j, text);
	if (json_value(&j, &v) || v.kind != JSON_T_ARR)
		return false;
	while (json_element(&j, &v) > 0) {
		uint64_t n, x = 0;

		id = v;
		extra = (struct json_val){ 0 };
		if (v.kind == JSON_T_OBJ) {
			id = (struct json_val){ 0 };
			if (read_members(&j, m))
				return false;
		}
		if (id.kind != JSON_T_NUM || !id.raw.p || json_u64(&id, &n) || n > UINT32_MAX)
			return false;
		if (!number_of(&extra, UINT64_MAX, &x))
			return false;
		if (x && !str_eq(extra.raw, last) && !add_extra(d, extra.raw))
			return false;
		last = x ? extra.raw : (struct str){ NULL, 0 };
		d->err = blocks_token_room(&d->b);
		if (d->err)
			return false;
		d->b.tokens[d->b.ntokens++] = (uint32_t)n;
	}
	return true;
}

/* Media whose tokens lie in the block: [{"type": "mm_key", "hash": "…", "start_offset": N}, …]. An offset below 0: it
 * began in an earlier block, whose text the chain has. */
static bool read_media(struct decoding *d, struct str text)
{
	struct json_val v, hash, off;
	struct member m[] = { { "hash", &hash, NULL }, { "start_offset", &off, NULL }, MEMBERS_END };
	struct json j;

	json_init(&j, text);
	if (json_value(&j, &v) || v.kind != JSON_T_ARR)
		return true;
	while (json_element(&j, &v) > 0) {
		hash = off = (struct json_val){ 0 };
		if (v.kind == JSON_T_OBJ && read_members(&j, m))
			return false;
		if (off.kind == JSON_T_NUM && off.raw.p && *off.raw.p == '-')
			continue;
		if (hash.raw.p && !absent(&hash) && !add_extra(d, hash.raw))
			return false;
	}
	return true;
}

static bool text_of(struct decoding *d, const struct json_val *v, struct buf *mem, struct str *ret)
{
	if (absent(v) || v->kind != JSON_T_STR || !v->raw.n)
		return true;
	*ret = v->raw;
	if (!v->escaped)
		return true;
	buf_consume(mem, buf_len(mem));
	d->err = json_unescape(v, mem);
	*ret = buf_str(mem);
	return !d->err;
}

/* The adapter and the salt of a chain: they stand with the event or with its blocks. */
struct names {
	struct json_val lora_name, lora_id, salt;
};

static bool take_names(struct decoding *d, const struct names *n)
{
	uint64_t id = 0;

	if (!text_of(d, &n->lora_name, &d->name, &d->e.lora_name) || !text_of(d, &n->salt, &d->salt, &d->e.salt))
		return false;
	if (!number_of(&n->lora_id, INT64_MAX, &id))
		return false;
	/* Adapters are counted from 0; none is null. */
	if (!absent(&n->lora_id))
		d->e.lora_id = (int64_t)(id < INT64_MAX ? id + 1 : id);
	return true;
}

/* Full, partial (0), or neither (-1). */
static int judge_size(struct decoding *d, unsigned tokens)
{
	struct trt_state *st = d->st;

	if (tokens && (tokens & (tokens - 1)) == 0 && tokens > st->block && tokens <= BLOCK_MAX) {
		if (d->b.nhashes > d->first_hash)
			return -1; /* blocks of one chain differ */
		st->block = tokens;
	}
	if (tokens && tokens == st->block)
		return 1;
	return tokens && (tokens < st->block || !st->block) ? 0 : -1;
}

static bool add_block(struct decoding *d, uint64_t hash)
{
	d->err = blocks_hash_room(&d->b);
	if (d->err)
		return false;
	d->e.block_size = d->st->block;
	d->b.hashes[d->b.nhashes++] = hash;
	d->has_last = true;
	d->last = hash;
	return true;
}

static bool read_block(struct decoding *d, struct json *j)
{
	struct json_val hash = { 0 }, tokens = { 0 }, media = { 0 }, level = { 0 };
	struct str tokens_text, media_text = { NULL, 0 };
	struct names n = { 0 };
	struct member m[] = { { "block_hash", &hash, NULL },	   { "tokens", &tokens, &tokens_text },
			      { "cache_level", &level, NULL },	   { "mm_keys", &media, &media_text },
			      { "lora_name", &n.lora_name, NULL }, { "lora_id", &n.lora_id, NULL },
			      { "cache_salt", &n.salt, NULL },	   MEMBERS_END };
	unsigned before, extras;
	uint64_t h, at = 0;
	int size;

	if (read_members(j, m) || !hash.raw.p || !hash_of(&hash, &h) || !tokens.raw.p ||
	    !number_of(&level, UINT32_MAX, &at))
		return false;
	if (d->has_last && d->last == h)
		return false;
	/* A run is of one level; names, which all blocks repeat, count at its beginning. */
	if (d->b.nhashes > d->first_hash && at != d->level)
		flush(d);
	if (d->b.nhashes == d->first_hash) {
		d->e.has_parent = d->has_last;
		d->e.parent = d->last;
		d->level = at;
		if (!take_names(d, &n))
			return false;
	}
	before = d->b.ntokens;
	extras = d->e.nextra;
	if (!read_tokens(d, tokens_text) || (media_text.p && !read_media(d, media_text)))
		return false;
	size = judge_size(d, d->b.ntokens - before);
	if (size > 0 && !d->cut)
		return add_block(d, h);
	d->b.ntokens = before;
	d->e.nextra = extras;
	d->cut = true;
	if (size >= 0)
		d->info->partial_blocks++;
	return size >= 0;
}

static bool stored(struct decoding *d, const struct json_val *parent, struct str blocks, const struct names *n)
{
	struct json_val v;
	struct json j;

	if (!take_names(d, n))
		return false;
	if (!absent(parent) && !hash_of(parent, &d->last))
		return false;
	d->has_last = !absent(parent) && d->last;
	d->e.type = KV_STORED;
	json_init(&j, blocks);
	if (!blocks.p || json_value(&j, &v) || v.kind != JSON_T_ARR)
		return false;
	while (json_element(&j, &v) > 0) {
		if (v.kind != JSON_T_OBJ || !read_block(d, &j))
			return false;
	}
	flush(d);
	return true;
}

static bool removed(struct decoding *d, struct str hashes)
{
	struct json_val v;
	struct json j;

	json_init(&j, hashes);
	if (!hashes.p || json_value(&j, &v) || v.kind != JSON_T_ARR)
		return false;
	while (json_element(&j, &v) > 0) {
		if (json_skip(&j, &v, NULL))
			return false;
		d->err = blocks_hash_room(&d->b);
		if (d->err || !hash_of(&v, &d->b.hashes[d->b.nhashes++]))
			return false;
	}
	d->e.type = KV_REMOVED;
	d->e.everywhere = true;
	flush(d);
	return true;
}

/* A change of priority alone moves nothing. */
static bool updated(struct decoding *d, const struct json_val *hash, const struct json_val *level, struct str diff)
{
	struct json_val v, to = { 0 }, from = { 0 };
	struct member m[] = { { "new_value", &to, NULL }, { "old_value", &from, NULL }, MEMBERS_END };
	uint64_t a = 0, b = 0, h;
	struct json j;

	if (!hash->raw.p || !hash_of(hash, &h))
		return false;
	if (absent(level))
		return true;
	json_init(&j, diff);
	if (level->kind != JSON_T_OBJ || json_value(&j, &v) || read_members(&j, m) || absent(&to) || absent(&from) ||
	    !number_of(&to, UINT32_MAX, &a) || !number_of(&from, UINT32_MAX, &b))
		return false;
	if (str_eq(level_of(a), level_of(b)))
		return true;
	d->e.nhashes = 1;
	d->e.hashes = &h;
	d->e.type = KV_STORED; /* without tokens: only where it lies */
	d->e.medium = level_of(a);
	d->event(d->arg, &d->e);
	d->e.type = KV_REMOVED;
	d->e.medium = level_of(b);
	d->event(d->arg, &d->e);
	return true;
}

struct fields {
	struct json_val type, parent, blocks, hashes, hash, level, window, group, data;
	struct str blocks_text, hashes_text, level_text, data_text;
	struct names names;
};

static bool read_fields(struct str text, struct fields *f)
{
	struct member m[] = { { "data", &f->data, &f->data_text },
			      { "type", &f->type, NULL },
			      { "parent_hash", &f->parent, NULL },
			      { "blocks", &f->blocks, &f->blocks_text },
			      { "block_hashes", &f->hashes, &f->hashes_text },
			      { "block_hash", &f->hash, NULL },
			      { "cache_level", &f->level, &f->level_text },
			      { "window_size", &f->window, NULL },
			      { "layer_group_id", &f->group, NULL },
			      { "lora_name", &f->names.lora_name, NULL },
			      { "lora_id", &f->names.lora_id, NULL },
			      { "cache_salt", &f->names.salt, NULL },
			      MEMBERS_END };
	struct json_val v;
	struct json j;

	json_init(&j, text);
	if (json_value(&j, &v) || v.kind != JSON_T_OBJ || read_members(&j, m) || json_end(&j))
		return false;
	if (f->data.kind != JSON_T_OBJ || !f->data_text.p)
		return false;
	json_init(&j, f->data_text);
	return !json_value(&j, &v) && !read_members(&j, m + 1);
}

static bool event_of(struct decoding *d, struct str text, bool *ret_known)
{
	struct fields f = { .type = { 0 } };
	uint64_t window = 0, group = 0;

	if (!read_fields(text, &f) || f.type.kind != JSON_T_STR || !f.type.raw.p)
		return false;
	if (!number_of(&f.window, UINT32_MAX, &window) || !number_of(&f.group, INT64_MAX, &group))
		return false;
	d->e.window = (uint32_t)window;
	d->e.has_group = !absent(&f.group);
	d->e.group = (int64_t)group;
	*ret_known = true;
	if (json_str_is(&f.type, STR("stored")))
		return stored(d, &f.parent, f.blocks_text, &f.names);
	if (json_str_is(&f.type, STR("removed")))
		return removed(d, f.hashes_text);
	if (json_str_is(&f.type, STR("updated")))
		return updated(d, &f.hash, &f.level, f.level_text);
	*ret_known = json_str_is(&f.type, STR("created"));
	if (*ret_known) {
		d->e.type = KV_CLEARED;
		d->event(d->arg, &d->e);
	}
	return true;
}

int trt_decode(struct trt_state *st, struct str text, struct kv_batch_info *info,
	       void (*event)(void *arg, const struct kv_event *e), void *arg)
{
	struct decoding d = { .st = st, .info = info, .event = event, .arg = arg };
	bool known = true;

	*info = (struct kv_batch_info){ .rank = -1 };
	if (!event_of(&d, text, &known) && d.err != -ENOMEM)
		info->bad_events = 1;
	info->unknown_events = !known;
	buf_free(&d.name);
	buf_free(&d.salt);
	blocks_free(&d.b);
	return d.err == -ENOMEM ? -ENOMEM : 0;
}
