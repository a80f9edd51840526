/* SPDX-License-Identifier: Apache-2.0
 * Small tokenizers of every family (selftests/data/bpe, made by make.py there) with the ids that the tokenizers library
 * gives for some 200 strings each. Real models: selftests/real/bpe.py.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "model/encoder.h"
#include "model/unicode.h"
#include "model/vocab_int.h"

#define DATA "selftests/data/bpe/"

static const char *const families[] = { "qwen", "llama3", "o200k",  "tekken",	 "deepseek",
					"gpt2", "gemma",  "llama2", "metaspace", "metaspace-split" };
#define FAMILIES (sizeof(families) / sizeof(families[0]))

static struct vocab *load(const char *family, const char *cache)
{
	char dir[256], err[512];
	struct vocab *v;

	snprintf(dir, sizeof(dir), DATA "%s", family);
	v = vocab_load(dir, cache, err, sizeof(err));
	if (!v)
		fail_msg("%s", err);
	return v;
}

static struct encoder *encoder(struct vocab *v)
{
	struct encoder *e = encoder_new(v);

	if (!e)
		fail_msg("%s", vocab_no_encoder(v) ? vocab_no_encoder(v) : "no memory");
	return e;
}

static void same_ids(const char *family, size_t row, struct buf *ids, const json_t *want)
{
	const uint32_t *id = (const uint32_t *)(const void *)buf_data(ids);
	size_t n = buf_len(ids) / sizeof(*id);

	for (size_t i = 0; i < n && i < json_array_size(want); i++)
		if (id[i] != json_integer_value(json_array_get(want, i)))
			fail_msg("%s, row %zu: token %zu is %u", family, row, i, id[i]);
	if (n != json_array_size(want))
		fail_msg("%s, row %zu: %zu tokens", family, row, n);
	ids->len = ids->off = 0;
}

static void check_vectors(const char *family, struct encoder *e)
{
	struct buf ids = { 0 };
	json_error_t err;
	json_t *rows, *o;
	char path[256];
	size_t i;

	snprintf(path, sizeof(path), DATA "%s/vectors.json", family);
	rows = json_load_file(path, JSON_ALLOW_NUL, &err);
	assert_true(json_array_size(rows) > 150);
	json_array_foreach(rows, i, o)
	{
		const json_t *text = json_object_get(o, "text"), *special = json_object_get(o, "special");
		struct str s = { json_string_value(text), json_string_length(text) };

		assert_int_equal(encoder_encode(e, s, false, &ids), 0);
		same_ids(family, i, &ids, json_object_get(o, "ids"));
		assert_int_equal(encoder_encode(e, s, true, &ids), 0);
		same_ids(family, i, &ids, special ? special : json_object_get(o, "ids"));
	}
	json_decref(rows);
	buf_free(&ids);
}

static void every_family_gives_the_ids_of_the_library(void **state)
{
	for (size_t i = 0; i < FAMILIES; i++) {
		struct vocab *v = load(families[i], NULL);
		struct encoder *e = encoder(v);

		vocab_unref(v);
		check_vectors(families[i], e);
		encoder_free(e);
	}
}

static void text_that_is_no_utf8_has_no_ids(void **state)
{
	static const char *const bad[] = { "\xff",	"a\x80",   "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
					   "a\xe2\x96", "\xf0\x9f" };
	struct vocab *v = load("qwen", NULL);
	struct encoder *e = encoder(v);
	struct buf ids = { 0 };

	assert_int_equal(encoder_encode(e, STR("x"), false, &ids), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(encoder_encode(e, str_of(bad[i]), true, &ids), -EILSEQ);
	assert_int_equal(buf_len(&ids), sizeof(uint32_t));
	assert_int_equal(encoder_encode(e, (struct str){ NULL, 0 }, false, &ids), 0);
	buf_free(&ids);
	encoder_free(e);
	vocab_unref(v);
}

/* Not by each length squared: a megabyte of what is one word. */
static void long_words_take_no_longer_than_their_length(void **state)
{
	static const char *const unit[] = { "a", " ", "ab", "\n", "!", "\xcc\x81", "\xe3\x83\xad\x41" };

	for (size_t f = 0; f < FAMILIES; f++) {
		struct vocab *v = load(families[f], NULL);
		struct encoder *e = encoder(v);
		struct buf text = { 0 }, ids = { 0 };

		for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++) {
			while (buf_len(&text) < 200000)
				assert_int_equal(buf_puts(&text, unit[i]), 0);
			assert_int_equal(encoder_encode(e, buf_str(&text), false, &ids), 0);
			text.len = ids.len = 0;
		}
		buf_free(&text);
		buf_free(&ids);
		encoder_free(e);
		vocab_unref(v);
	}
}

/* --- what is not known --- */

#define TOKENIZER(normalizer, pre, model, added)                         \
	"{\"normalizer\":" normalizer ",\"pre_tokenizer\":" pre          \
	",\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":[" added \
	"],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}," model "}}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define SPLIT(regex)                                                                                                \
	"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false," \
	"\"pattern\":{\"Regex\":\"" regex "\"}},{\"type\":\"ByteLevel\",\"use_regex\":false}]}"

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void an_unknown_part_is_named_and_leaves_the_table_of_tokens(void **state)
{
	static const struct {
		const char *file, *why;
	} rows[] = {
		{ TOKENIZER("{\"type\":\"Lowercase\"}", BYTE_LEVEL, "\"merges\":[]", ""), "normalizer \"Lowercase\"" },
		{ TOKENIZER("{\"type\":\"NFKC\"}", BYTE_LEVEL, "\"merges\":[]", ""), "normalizer \"NFKC\"" },
		{ TOKENIZER("null", "{\"type\":\"Whitespace\"}", "\"merges\":[]", ""), "pre_tokenizer \"Whitespace\"" },
		{ TOKENIZER("null", SPLIT("\\\\w+"), "\"merges\":[]", ""), "pattern \\w+" },
		{ TOKENIZER("null", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "\"merges\":[]", ""),
		  "add_prefix_space" },
		{ TOKENIZER("null", "null", "\"merges\":[]", ""), "pre_tokenizer" },
		{ TOKENIZER("null", BYTE_LEVEL, "\"dropout\":0.1,\"merges\":[]", ""), "dropout" },
		{ TOKENIZER("null", BYTE_LEVEL, "\"merges\":[]", ""), "no token for byte 0x00" },
		{ TOKENIZER("null", BYTE_LEVEL, "\"merges\":[]", "{\"id\":5,\"content\":\"a\"}"), "with another id" },
	};
	char dir[] = "/tmp/kvs-encoder-XXXXXX", path[300];

	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char err[300];
		struct vocab *v;

		write_file(dir, "tokenizer.json", rows[i].file);
		v = vocab_load(dir, NULL, err, sizeof(err));
		if (!v)
			fail_msg("row %zu: %s", i, err);
		assert_true(str_eq(vocab_token(v, 2), STR("ab")));
		if (!vocab_no_encoder(v) || !strstr(vocab_no_encoder(v), rows[i].why))
			fail_msg("row %zu: \"%s\"", i, vocab_no_encoder(v) ? vocab_no_encoder(v) : "it has one");
		assert_null(encoder_new(v));
		assert_int_equal(errno, EOPNOTSUPP);
		vocab_unref(v);
	}
	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	unlink(path);
	rmdir(dir);
}

/* --- compiled files --- */

/* The one file in the directory. */
static void only_file(const char *dir, char *ret, size_t cap)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(ret, cap, "%s/%.200s", dir, e->d_name);
			n++;
		}
	closedir(d);
	assert_int_equal(n, 1);
}

static void a_compiled_file_gives_the_same(void **state)
{
	for (size_t i = 0; i < FAMILIES; i++) {
		char dir[] = "/tmp/kvs-cache-XXXXXX", path[300], source[VOCAB_SOURCE];
		struct vocab *made, *found;
		struct encoder *e;

		assert_non_null(mkdtemp(dir));
		made = load(families[i], dir);
		only_file(dir, path, sizeof(path));
		vocab_source(made, source);
		assert_non_null(strstr(path, source));
		found = load(families[i], dir);
		assert_false(made->mapped);
		assert_true(found->mapped);
		assert_int_equal(vocab_size(made), vocab_size(found));
		assert_true(str_eq(vocab_prefix(made), vocab_prefix(found)));
		e = encoder(found);
		check_vectors(families[i], e);
		encoder_free(e);
		vocab_unref(made);
		vocab_unref(found);
		unlink(path);
		rmdir(dir);
	}
}

static struct str slurp(const char *path)
{
	struct stat st;
	FILE *f = fopen(path, "r");
	char *p;

	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &st), 0);
	p = malloc((size_t)st.st_size);
	assert_non_null(p);
	assert_int_equal(fread(p, 1, (size_t)st.st_size, f), (size_t)st.st_size);
	fclose(f);
	return (struct str){ p, (size_t)st.st_size };
}

static void a_damaged_file_is_seen_and_made_anew(void **state)
{
	char dir[] = "/tmp/kvs-cache-XXXXXX", path[300], err[300];
	struct vocab *v;
	struct str good;
	char *p;

	assert_non_null(mkdtemp(dir));
	vocab_unref(load("qwen", dir));
	only_file(dir, path, sizeof(path));
	good = slurp(path);
	p = (char *)good.p;
	for (size_t i = 0; i < good.n; i += 97) {
		p[i] ^= 0x40;
		assert_non_null(image_check((const struct image *)(void *)p, good.n));
		p[i] ^= 0x40;
	}
	for (size_t n = 0; n < good.n; n += 997)
		assert_non_null(image_check((const struct image *)(void *)p, n));
	assert_null(image_check((const struct image *)(void *)p, good.n));
	assert_int_equal(truncate(path, 4000), 0);
	assert_null(vocab_open(path, err, sizeof(err)));
	assert_int_equal(errno, EBADMSG);
	assert_non_null(strstr(err, path));
	v = load("qwen", dir);
	assert_false(v->mapped);
	vocab_unref(v);
	v = load("qwen", dir);
	assert_true(v->mapped);
	vocab_unref(v);
	unlink(path);
	rmdir(dir);
	free(p);
}

/* Somebody who can sum up can still not make a reader leave the image. */
static void no_index_is_trusted_because_the_sum_is_right(void **state)
{
	struct vocab *v = load("gemma", NULL);
	size_t n = v->img->bytes;
	struct image *g = aligned_alloc(64, (n + 63) / 64 * 64);
	static const enum image_part parts[] = { IMG_OFF,   IMG_BYTES, IMG_CHARS, IMG_MERGES, IMG_WORDS,
						 IMG_ADDED, IMG_ROOT,  IMG_NODES, IMG_EDGES,  IMG_BEFORE };
	uint64_t sum[2];

	assert_non_null(g);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		uint32_t *w;
		size_t words, k;

		memcpy(g, v->img, n);
		w = (uint32_t *)(void *)((char *)g + g->part[parts[i]].off);
		words = g->part[parts[i]].bytes / 4;
		for (k = 0; k < words; k++) /* every slot taken, every index too large */
			w[k] = 0x7ffffffe;
		image_sum(g->source, n - offsetof(struct image, source), sum);
		g->sum = sum[0];
		assert_non_null(image_check(g, n));
	}
	free(g);
	vocab_unref(v);
}

static void a_changed_configuration_is_another_vocabulary(void **state)
{
	char dir[] = "/tmp/kvs-encoder-XXXXXX", path[300], a[VOCAB_SOURCE], b[VOCAB_SOURCE], err[300];
	struct str json = slurp(DATA "llama3/tokenizer.json");
	struct vocab *v;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(json.p, 1, json.n, f), json.n);
	fclose(f);
	v = vocab_load(dir, NULL, err, sizeof(err));
	assert_non_null(v);
	vocab_source(v, a);
	vocab_unref(v);
	write_file(dir, "tokenizer_config.json", "{\"add_bos_token\":false}");
	v = vocab_load(dir, NULL, err, sizeof(err));
	assert_non_null(v);
	vocab_source(v, b);
	assert_int_equal(vocab_prefix(v).n, 0);
	vocab_unref(v);
	assert_string_not_equal(a, b);
	unlink(path);
	snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
	unlink(path);
	rmdir(dir);
	free((char *)json.p);
}

static void nfc_composes_as_the_library_does(void **state)
{
	static const struct {
		const char *from, *to;
	} rows[] = {
		{ "e\xcc\x81", "\xc3\xa9" },
		{ "a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81" },
		{ "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c" },
		{ "\xed\x95\x98\xe1\x86\xab", "\xed\x95\x9c" },
		{ "\xe2\x84\xab", "\xc3\x85" },
		{ "x\xcc\x81y", "x\xcc\x81y" },
		{ "\xcc\x81"
		  "a",
		  "\xcc\x81"
		  "a" },
		{ ">\xcc\xb8", "\xe2\x89\xaf" },
	};
	struct buf out = { 0 };

	unicode_init();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(nfc_put(&out, rows[i].from, strlen(rows[i].from)), 0);
		if (!str_eq(buf_str(&out), str_of(rows[i].to)))
			fail_msg("row %zu: %.*s", i, (int)buf_len(&out), buf_data(&out));
		out.len = out.off = 0;
	}
	buf_free(&out);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_family_gives_the_ids_of_the_library),
		cmocka_unit_test(text_that_is_no_utf8_has_no_ids),
		cmocka_unit_test(long_words_take_no_longer_than_their_length),
		cmocka_unit_test(an_unknown_part_is_named_and_leaves_the_table_of_tokens),
		cmocka_unit_test(a_compiled_file_gives_the_same),
		cmocka_unit_test(a_damaged_file_is_seen_and_made_anew),
		cmocka_unit_test(no_index_is_trusted_because_the_sum_is_right),
		cmocka_unit_test(a_changed_configuration_is_another_vocabulary),
		cmocka_unit_test(nfc_composes_as_the_library_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
