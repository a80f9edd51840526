/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/time.h"
#include "events/events.h"

#define DATA "selftests/data/"

/* What a payload gave: copies of up to 8 events. */
struct got {
	unsigned stored, removed, cleared, n;
	struct kv_event e[8];
	uint64_t hashes[8][128];
	uint32_t tokens[8][2048];
	char text[8][40][80]; /* medium, lora, locality, kind, salt, extras */
};

static struct str keep(struct got *g, unsigned slot, struct str s)
{
	if (!s.p)
		return s;
	assert_true(s.n < sizeof(g->text[0][0]));
	memcpy(g->text[g->n][slot], s.p, s.n);
	return (struct str){ g->text[g->n][slot], s.n };
}

static void take(void *arg, const struct kv_event *e)
{
	struct got *g = arg;
	struct kv_event *c = &g->e[g->n];

	g->stored += e->type == KV_STORED;
	g->removed += e->type == KV_REMOVED;
	g->cleared += e->type == KV_CLEARED;
	if (g->n == 8)
		return;
	*c = *e;
	assert_true(e->nhashes <= 128 && e->ntokens <= 2048);
	if (e->nhashes)
		memcpy(g->hashes[g->n], e->hashes, e->nhashes * sizeof(e->hashes[0]));
	if (e->ntokens)
		memcpy(g->tokens[g->n], e->tokens, e->ntokens * sizeof(e->tokens[0]));
	c->hashes = g->hashes[g->n];
	c->tokens = g->tokens[g->n];
	c->medium = keep(g, 0, e->medium);
	c->lora_name = keep(g, 1, e->lora_name);
	c->locality = keep(g, 2, e->locality);
	c->kind = keep(g, 3, e->kind);
	c->salt = keep(g, 4, e->salt);
	for (unsigned i = 0; i < e->nextra; i++)
		c->extra[i] = keep(g, 5 + i, e->extra[i]);
	g->n++;
}

static size_t unhex(const char *hex, uint8_t **ret)
{
	size_t n = strlen(hex) / 2;
	uint8_t *p = malloc(n + !n);

	for (size_t i = 0; i < n; i++) {
		unsigned v = 0;

		sscanf(hex + 2 * i, "%2x", &v);
		p[i] = (uint8_t)v;
	}
	*ret = p;
	return n;
}

static json_t *load(const char *name)
{
	json_error_t err;
	json_t *j = json_load_file(name, JSON_DECODE_INT_AS_REAL, &err);

	if (!j)
		fail_msg("%s:%d: %s", name, err.line, err.text);
	return j;
}

static const struct row {
	const char *name;
	int r;
	unsigned stored, removed, cleared, bad, unknown;
	int rank;
} rows[] = {
	{ "a01_v085_stored_batch2", 0, 1, 0, 0, 0, 0, -1 },
	{ "a02_v085_removed", 0, 0, 1, 0, 0, 0, -1 },
	{ "a03_v085_cleared", 0, 0, 0, 1, 0, 0, -1 },
	{ "a04_v09_stored_dp0", 0, 1, 0, 0, 0, 0, 0 },
	{ "a05_v09_stored_dp3", 0, 1, 0, 0, 0, 0, 3 },
	{ "a06_dp_nil", 0, 0, 0, 1, 0, 0, -1 },
	{ "a07_v0102_stored_medium_gpu", 0, 1, 0, 0, 0, 0, 0 },
	{ "a08_v0102_removed_medium_gpu", 0, 0, 1, 0, 0, 0, 0 },
	{ "a09_stored_lora_id_only", 0, 1, 0, 0, 0, 0, 0 },
	{ "a10_bytes_hashes", 0, 1, 0, 0, 0, 0, 0 },
	{ "a11_bytes_removed", 0, 0, 1, 0, 0, 0, 0 },
	{ "a12_lora_name", 0, 1, 0, 0, 0, 0, 0 },
	{ "a13_extra_keys_salt", 0, 1, 0, 0, 0, 0, 0 },
	{ "a14_extra_keys_mm_bare", 0, 1, 0, 0, 0, 0, 0 },
	{ "a15_extra_keys_mm_tuple", 0, 1, 0, 0, 0, 0, 0 },
	{ "a16_extra_keys_embeds_bytes", 0, 1, 0, 0, 0, 0, 0 },
	{ "a17_group_idx", 0, 1, 0, 0, 0, 0, 0 },
	{ "a18_spec_full", 0, 1, 0, 0, 0, 0, 0 },
	{ "a19_spec_sliding_window", 0, 1, 0, 0, 0, 0, 0 },
	{ "a20_removed_group", 0, 0, 1, 0, 0, 0, 0 },
	{ "a21_unknown_trailing", 0, 1, 1, 1, 0, 0, 0 },
	{ "a22_cpu_tier", 0, 1, 0, 0, 0, 0, 0 },
	{ "a23_cpu_placeholder", 0, 1, 1, 0, 0, 0, 0 },
	{ "a24_multi", 0, 1, 1, 1, 0, 0, 1 },
	{ "a25_block64", 0, 1, 0, 0, 0, 0, 0 },
	{ "a26_empty_events", 0, 0, 0, 0, 0, 0, 0 },
	{ "a27_ts_int", 0, 0, 0, 1, 0, 0, 0 },
	{ "a28_large", 0, 1, 0, 0, 0, 0, 0 },
	{ "b01_map_stored_v026", 0, 1, 0, 0, 0, 0, 0 },
	{ "b02_map_removed", 0, 0, 1, 0, 0, 0, 0 },
	{ "b03_map_cleared", 0, 0, 0, 1, 0, 0, 0 },
	{ "b04_map_child", 0, 1, 0, 0, 0, 0, 0 },
	{ "b05_map_bytes", 0, 1, 0, 0, 0, 0, 0 },
	{ "b06_map_lora_salt", 0, 1, 0, 0, 0, 0, 0 },
	{ "b07_map_v028_locality", 0, 1, 1, 0, 0, 0, 0 },
	{ "b08_map_v029_session", 0, 1, 0, 0, 0, 0, 0 },
	{ "b09_map_unknown_keys", 0, 1, 0, 0, 0, 0, 0 },
	{ "b10_map_key_order", 0, 1, 0, 0, 0, 0, 0 },
	{ "b11_map_missing_optional", 0, 1, 0, 0, 0, 0, -1 },
	{ "b12_mixed_layouts", 0, 1, 1, 1, 0, 2, 2 },
	{ "b13_map_mm", 0, 1, 0, 0, 0, 0, 0 },
	{ "c01_outer_map", 0, 1, 0, 0, 0, 0, 0 },
	{ "s01_sgl_array_old", 0, 1, 0, 0, 0, 0, -1 },
	{ "s02_sgl_array_medium", 0, 1, 1, 0, 0, 0, -1 },
	{ "s03_sgl_array_salt_map", 0, 1, 0, 0, 0, 0, -1 },
	{ "s04_sgl_map", 0, 1, 0, 0, 0, 0, 0 },
	{ "s05_sgl_bigram", 0, 1, 0, 0, 0, 0, 0 },
	{ "s06_sgl_hicache", 0, 1, 1, 0, 0, 0, 1 },
	{ "s07_sgl_startup_clear", 0, 0, 0, 1, 0, 0, 0 },
	{ "t01_trtllm_map", 0, 1, 0, 0, 0, 0, 1 },
	{ "s08_sgl_map_old_dp", 0, 0, 1, 0, 0, 0, 3 },
	{ "g01_sim_array", 0, 1, 0, 0, 0, 0, 0 },
	{ "g02_sim_map", 0, 1, 0, 0, 0, 0, 1 },
	{ "g03_str8_array32_map16", 0, 1, 0, 0, 0, 0, -1 },
	{ "f01_bin_wrapped", 0, 1, 1, 0, 0, 0, -1 },
	{ "x01_truncated", -EBADMSG, 0, 0, 0, 0, 0, -1 },
	{ "x02_not_a_batch", -EBADMSG, 0, 0, 0, 0, 0, -1 },
	{ "x03_hashes_not_list", 0, 0, 0, 1, 1, 0, 0 },
	{ "x04_lying_array_len", -EBADMSG, 0, 0, 0, 0, 0, -1 },
	{ "x05_deep_nesting", -EBADMSG, 0, 0, 0, 0, 0, -1 },
	{ "x06_token_negative", 0, 0, 0, 0, 1, 0, 0 },
	{ "x07_hash_empty_bytes", 0, 0, 0, 0, 1, 0, 0 },
	{ "x08_hash_short_bytes", 0, 1, 0, 0, 0, 0, 0 },
	{ "x09_unaligned", 0, 0, 0, 0, 1, 0, 0 },
	{ "x10_self_parent", 0, 0, 0, 0, 1, 0, 0 },
	{ "x11_ext_type", 0, 0, 0, 0, 1, 0, 0 },
};

static const struct row *row_of(const char *name)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

static struct got decode(json_t *vectors, const char *name)
{
	static struct got g;
	struct kv_batch_info info;
	json_t *v;
	size_t i;

	memset(&g, 0, sizeof(g));
	json_array_foreach(vectors, i, v)
	{
		uint8_t *p;
		size_t n;

		if (strcmp(json_string_value(json_object_get(v, "name")), name) != 0)
			continue;
		n = unhex(json_string_value(json_object_get(v, "hex")), &p);
		assert_int_equal(kv_decode(p, n, &info, take, &g), 0);
		free(p);
	}
	assert_true(g.n > 0);
	return g;
}

static void every_vector_gives_its_events(void **state)
{
	json_t *j = load(DATA "kv_events.json"), *v;
	unsigned seen = 0;
	size_t i;

	json_array_foreach(json_object_get(j, "vectors"), i, v)
	{
		const char *name = json_string_value(json_object_get(v, "name"));
		const struct row *row = row_of(name);
		struct kv_batch_info info;
		struct got g = { 0 };
		uint8_t *p;
		size_t n;

		if (!row)
			fail_msg("%s has no row", name);
		seen++;
		n = unhex(json_string_value(json_object_get(v, "hex")), &p);
		if (kv_decode(p, n, &info, take, &g) != row->r || g.stored != row->stored ||
		    g.removed != row->removed || g.cleared != row->cleared || info.bad_events != row->bad ||
		    info.unknown_events != row->unknown || info.rank != row->rank)
			fail_msg("%s: %u stored, %u removed, %u cleared, %u bad, %u unknown, rank %d", name, g.stored,
				 g.removed, g.cleared, info.bad_events, info.unknown_events, (int)info.rank);
		/* Cut anywhere it is no batch and calls nobody. */
		for (size_t k = 0; k < n; k++) {
			memset(&g, 0, sizeof(g));
			assert_int_equal(kv_decode(p, k, &info, take, &g), -EBADMSG);
			assert_int_equal(g.n, 0);
		}
		free(p);
	}
	assert_int_equal(seen, sizeof(rows) / sizeof(rows[0]));
	json_decref(j);
}

static void fields_have_their_values(void **state)
{
	json_t *j = load(DATA "kv_events.json"), *v = json_object_get(j, "vectors");
	struct got g;

	g = decode(v, "a01_v085_stored_batch2");
	assert_int_equal(g.e[0].nhashes, 2);
	assert_true(g.e[0].hashes[0] == UINT64_C(0xdeadbeef12345678) && g.e[0].hashes[1] == UINT64_MAX);
	assert_false(g.e[0].has_parent);
	assert_int_equal(g.e[0].ntokens, 32);
	assert_int_equal(g.e[0].tokens[0], 128000);
	assert_int_equal(g.e[0].tokens[31], 115);
	assert_int_equal(g.e[0].block_size, 16);
	assert_null(g.e[0].medium.p);
	g = decode(v, "a04_v09_stored_dp0");
	assert_true(g.e[0].has_parent && g.e[0].parent == UINT64_MAX && g.e[0].hashes[0] == 7);
	g = decode(v, "a10_bytes_hashes");
	assert_true(g.e[0].hashes[0] == UINT64_C(1736447835066146335) &&
		    g.e[0].hashes[1] == UINT64_C(8970465118873813635) && g.e[0].hashes[1] != g.e[0].hashes[0]);
	g = decode(v, "x08_hash_short_bytes");
	assert_true(g.e[0].hashes[0] == 258);
	g = decode(v, "s01_sgl_array_old");
	assert_true(g.e[0].hashes[0] == UINT64_C(14958615928728313947));
	g = decode(v, "s08_sgl_map_old_dp");
	assert_true(g.e[0].hashes[0] == UINT64_MAX && g.e[0].hashes[1] == 5);
	assert_true(str_eq(g.e[0].medium, STR("DISK")));
	g = decode(v, "b10_map_key_order");
	assert_true(g.e[0].hashes[0] == UINT64_C(16045690981402826360) && g.e[0].tokens[15] == 2);
	g = decode(v, "s05_sgl_bigram");
	assert_int_equal(g.e[0].ntokens, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(g.e[0].tokens[i], i + 1);
	g = decode(v, "g01_sim_array");
	assert_false(g.e[0].has_parent);
	assert_int_equal(g.e[0].block_size, 16);
	g = decode(v, "a09_stored_lora_id_only");
	assert_true(g.e[0].lora_id == 1 && !g.e[0].lora_name.p);
	g = decode(v, "a19_spec_sliding_window");
	assert_true(g.e[0].has_group && g.e[0].group == 1 && str_eq(g.e[0].kind, STR("sliding_window")));
	g = decode(v, "b07_map_v028_locality");
	assert_true(str_eq(g.e[0].locality, STR("REMOTE")) && str_eq(g.e[0].medium, STR("STORAGE")));
	g = decode(v, "a23_cpu_placeholder");
	assert_true(g.e[0].ntokens == 0 && g.e[0].nhashes == 1 && str_eq(g.e[0].medium, STR("CPU")));
	g = decode(v, "f01_bin_wrapped");
	assert_true(g.e[0].ntokens == 0 && !g.e[0].has_parent && str_eq(g.e[1].medium, STR("SHARED_STORAGE")));
	json_decref(j);
}

static void extra_keys_name_a_namespace(void **state)
{
	json_t *j = load(DATA "kv_events.json"), *v = json_object_get(j, "vectors");
	struct got g;

	g = decode(v, "a13_extra_keys_salt"); /* without the adapter's name */
	assert_true(g.e[0].nextra == 1 && str_eq(g.e[0].extra[0], STR("salt-1")) && g.e[0].extra_at[0] == 0);
	assert_true(str_eq(g.e[0].lora_name, STR("adapter")));
	g = decode(v, "a14_extra_keys_mm_bare");
	assert_true(g.e[0].nextra == 1 && g.e[0].extra[0].n == 64);
	g = decode(v, "a15_extra_keys_mm_tuple"); /* once, where it begins */
	assert_true(g.e[0].nextra == 1 && g.e[0].extra[0].n == 64 && g.e[0].extra_at[0] == 0);
	g = decode(v, "a16_extra_keys_embeds_bytes");
	assert_true(g.e[0].nextra == 1 && g.e[0].extra[0].n == 32);
	g = decode(v, "b13_map_mm");
	assert_true(g.e[0].nextra == 2 && str_eq(g.e[0].extra[1], STR("salt")));
	g = decode(v, "s03_sgl_array_salt_map");
	assert_true(str_eq(g.e[0].salt, STR("tenant-a")) && !g.e[0].lora_name.p);
	g = decode(v, "s04_sgl_map");
	assert_true(str_eq(g.e[0].salt, STR("tenant-a")));
	json_decref(j);
}

static void a_real_engine_is_read_without_a_complaint(void **state)
{
	json_t *j = load(DATA "vllm_kv_live.json"), *m;
	struct got g = { 0 };
	size_t i;

	json_array_foreach(j, i, m)
	{
		struct kv_batch_info info;
		uint8_t *p;
		size_t n = unhex(json_string_value(json_array_get(json_object_get(m, "frames"), 2)), &p);

		g.n = 0;
		assert_int_equal(kv_decode(p, n, &info, take, &g), 0);
		assert_int_equal(info.bad_events + info.unknown_events, 0);
		assert_int_equal(info.rank, 0);
		free(p);
	}
	assert_true(g.stored > 5 && g.removed > 5 && g.cleared == 1);
	json_decref(j);
}

static void count_blocks(void *arg, const struct kv_event *e)
{
	*(uint64_t *)arg += e->nhashes;
}

/* 512 blocks of 16 tokens as vLLM writes them: maps, minimal integers. */
static void a_million_blocks_a_second(void **state)
{
	struct buf b = { 0 };
	struct kv_batch_info info;
	uint64_t blocks = 0, t;

	buf_put(&b, "\x93\xcb\x41\xda\x30\x54\x98\x10\x00\x00\x91\x84", 12);
	buf_put(&b,
		"\xa4type\xab"
		"BlockStored\xac"
		"block_hashes\xdc\x02\x00",
		33);
	for (unsigned i = 0; i < 512; i++)
		buf_put(&b, "\xcf\xde\xad\xbe\xef\x12\x34\x56\x78", 9);
	buf_put(&b, "\xa9token_ids\xdc\x20\x00", 13);
	for (unsigned i = 0; i < 8192; i++)
		buf_put(&b, i % 4 ? "\xcd\x12\x34" : "\xce\x00\x01\xf4\x00", i % 4 ? 3 : 5);
	buf_put(&b,
		"\xaa"
		"block_size\x10\x00",
		13);
	t = time_mono();
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(kv_decode(buf_data(&b), buf_len(&b), &info, count_blocks, &blocks), 0);
	t = time_mono() - t;
	assert_int_equal(blocks, 200 * 512);
	if (getenv("KVS_VERBOSE"))
		printf("%.1f M blocks/s\n", (double)blocks / ((double)t / 1e9) / 1e6);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true((double)blocks / ((double)t / 1e9) > 0.5e6);
#endif
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_vector_gives_its_events),
		cmocka_unit_test(fields_have_their_values),
		cmocka_unit_test(extra_keys_name_a_namespace),
		cmocka_unit_test(a_real_engine_is_read_without_a_complaint),
		cmocka_unit_test(a_million_blocks_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
