/* SPDX-License-Identifier: Apache-2.0
 * Tables over small tokenizers in selftests/data/vocab, and, where KVS_TOKENIZERS=DIR holds real ones
 * (DIR/<model>/tokenizer.json), ids that the reference implementation made of 73 strings and some chats.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "model/vocab.h"

#define DATA "selftests/data/vocab/"

static struct vocab *load(const char *dir)
{
	char err[256] = "";
	struct vocab *v = vocab_load(dir, NULL, err, sizeof(err));

	if (!v)
		fail_msg("%s", err);
	return v;
}

struct row {
	uint32_t id;
	const char *bytes; /* NULL: not in the table */
	size_t n;
};
#define ROW(id, lit) { id, lit, sizeof(lit) - 1 }

static void check_rows(const struct vocab *v, const struct row *row, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct str s = vocab_token(v, row[i].id);

		assert_int_equal(s.n, row[i].n);
		assert_int_equal(!s.p, !row[i].bytes);
		if (s.n)
			assert_memory_equal(s.p, row[i].bytes, s.n);
	}
}

static void byte_level_tokens_are_their_bytes(void **state)
{
	static const struct row rows[] = {
		ROW(0, "a"),
		ROW(1, " hello"),
		ROW(2, "\n"),
		ROW(3, "\n\t"),
		ROW(4, "\xc3\xbc"),
		ROW(5, "\xc3"),
		ROW(6, "\0"),
		ROW(7, "\xff"),
		ROW(8, "\xad"),
		ROW(9, "\xa1"),
		ROW(10, "<|begin|>"),
		ROW(11, "<tool\xe2\x96\x81x>"),
		ROW(12, "not\xe2\x96\x81"
			"alphabet"),
		{ 13, NULL, 0 },
		ROW(14, "<|user|>"),
		ROW(15, "a b"),
		ROW(16, "\xc5\x86!"),
		{ 17, NULL, 0 },
		{ UINT32_MAX, NULL, 0 },
	};
	struct vocab *v = load(DATA "bytelevel");

	assert_int_equal(vocab_size(v), 17);
	check_rows(v, rows, sizeof(rows) / sizeof(rows[0]));
	assert_true(str_eq(vocab_prefix(v), STR("<|begin|>")));
	vocab_unref(v);
}

static void sentencepiece_tokens_are_their_bytes(void **state)
{
	static const struct row rows[] = {
		ROW(0, "<unk>"),    ROW(1, "<s>"),   ROW(2, "<end\xe2\x96\x81x>"),
		ROW(3, "\n"),	    ROW(4, "\xff"),  ROW(5, " Hello"),
		ROW(6, "a b"),	    ROW(7, "<0x0>"), ROW(8, "  "),
		ROW(9, "\xc3\xbc"),
	};
	struct vocab *v = load(DATA "sentencepiece");

	check_rows(v, rows, sizeof(rows) / sizeof(rows[0]));
	assert_true(str_eq(vocab_prefix(v), STR("<s> ")));
	vocab_unref(v);
}

static void the_config_file_can_add_a_bos_and_tokens(void **state)
{
	static const struct row rows[] = {
		ROW(0, "<\xef\xbd\x9c"
		       "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"),
		ROW(1, "a"),
		{ 2, NULL, 0 },
		ROW(3, "<|late|>"),
	};
	struct vocab *v = load(DATA "bos-by-config");

	check_rows(v, rows, sizeof(rows) / sizeof(rows[0]));
	assert_true(str_eq(vocab_prefix(v), vocab_token(v, 0)));
	vocab_unref(v);
}

static void text_is_all_or_nothing(void **state)
{
	static const uint32_t good[] = { 10, 0, 1, 2 }, hole[] = { 0, 13 }, beyond[] = { 0, 99 };
	struct vocab *v = load(DATA "bytelevel");
	struct buf b = { 0 };

	assert_int_equal(vocab_text(v, good, 0, &b), 0);
	assert_int_equal(vocab_text(v, good, 4, &b), 0);
	assert_true(str_eq(buf_str(&b), STR("<|begin|>a hello\n")));
	assert_int_equal(vocab_text(v, hole, 2, &b), -ERANGE);
	assert_int_equal(vocab_text(v, beyond, 2, &b), -ERANGE);
	assert_int_equal(buf_len(&b), 17);
	buf_free(&b);
	vocab_unref(v);
}

/* kvsim's tokenizer, for a gateway that reads its vocabulary from a folder. */
static void the_bytes_tokenizer_is_the_plain_table(void **state)
{
	struct vocab *v = load("selftests/data/bytes-tokenizer"), *plain = vocab_bytes();

	assert_int_equal(vocab_size(v), 256);
	assert_int_equal(vocab_prefix(v).n, 0);
	for (uint32_t i = 0; i < 256; i++) {
		assert_int_equal(vocab_token(v, i).n, 1);
		assert_int_equal(*vocab_token(v, i).p, *vocab_token(plain, i).p);
	}
	vocab_unref(v);
	vocab_unref(plain);
}

static void every_byte_is_a_token_of_the_plain_table(void **state)
{
	struct vocab *v = vocab_ref(vocab_bytes());

	vocab_unref(v);
	assert_int_equal(vocab_size(v), 256);
	assert_int_equal(vocab_prefix(v).n, 0);
	for (uint32_t i = 0; i < 256; i++) {
		assert_int_equal(vocab_token(v, i).n, 1);
		assert_int_equal((unsigned char)vocab_token(v, i).p[0], i);
	}
	vocab_unref(v);
	vocab_unref(NULL);
}

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

#define BYTES(rest) "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}" rest "}"

static void what_is_not_understood_is_refused_by_name(void **state)
{
	static const struct {
		const char *file, *why;
		int err;
	} rows[] = {
		{ NULL, "cannot be opened", ENOENT },
		{ "{", "line 1, column 1", EINVAL },
		{ "[]", "not a JSON object", EINVAL },
		{ "{}", "no \"model\" object", EINVAL },
		{ "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "model.type is \"Unigram\"", EOPNOTSUPP },
		{ "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "model.type is \"WordPiece\"",
		  EOPNOTSUPP },
		{ "{\"model\":{\"type\":\"Word\\nLevel\",\"vocab\":{\"a\":0}}}", "\"Word Level\"", EOPNOTSUPP },
		{ "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"end_of_word_suffix\":\"</w>\"}}",
		  "end_of_word_suffix", EOPNOTSUPP },
		{ "{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}",
		  "decoder.type \"CTC\"", EOPNOTSUPP },
		{ "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"}}}",
		  "the id of token a", EINVAL },
		{ "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}",
		  "out of range", ERANGE },
		{ "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999}}}",
		  "out of range", ERANGE },
		{ "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", "no token",
		  EINVAL },
		{ BYTES(",\"added_tokens\":[{\"id\":1}]"), "added_tokens[0]", EINVAL },
		{ BYTES(",\"post_processor\":{\"type\":\"Odd\"}"), "post_processor.type \"Odd\"", EOPNOTSUPP },
		{ BYTES(",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
			"{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[7]}}}"),
		  "token 7, which does not exist", EINVAL },
	};
	char dir[] = "/tmp/kvs-vocab-XXXXXX", path[300];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char err[400] = "";

		if (rows[i].file)
			write_file(dir, "tokenizer.json", rows[i].file);
		errno = 0;
		assert_null(vocab_load(dir, NULL, err, sizeof(err)));
		assert_int_equal(errno, rows[i].err);
		if (!strstr(err, path) || !strstr(err, rows[i].why) || strchr(err, '\n'))
			fail_msg("row %zu: \"%s\"", i, err);
	}
	unlink(path);
	rmdir(dir);
}

static uint32_t *ids_of(const json_t *list, size_t *ret_n)
{
	size_t n = json_array_size(list);
	uint32_t *ids = malloc((n + 1) * sizeof(*ids));

	assert_non_null(ids);
	for (size_t i = 0; i < n; i++)
		ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
	*ret_n = n;
	return ids;
}

/* Rows whose text a normalizer rewrites before it is tokenized (NFC; a U+2581 that becomes a space): ids give the
 * canonical form back. */
static bool rewritten(const char *model, const char *name)
{
	static const char *const rows[] = { "qwen3 ko_jamo",	  "qwen3 nfd",	     "qwen3 nfc_sing",
					    "qwen3 nfd_order",	  "qwen3 nfc_excl",  "qwen3 sp_spaces",
					    "gemma3 sp_deepseek", "gemma3 spm_lower" };
	char key[64];

	snprintf(key, sizeof(key), "%s %s", model, name);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(key, rows[i]) == 0)
			return true;
	return false;
}

static void check_model(const struct vocab *v, const char *model, const char *bos)
{
	struct str prefix = vocab_prefix(v);
	struct buf b = { 0 };
	unsigned compared = 0;
	json_error_t e;
	char path[300];
	json_t *root;
	json_t *o;
	size_t i;

	snprintf(path, sizeof(path), DATA "%s.vectors.json", model);
	root = json_load_file(path, JSON_ALLOW_NUL, &e);
	assert_non_null(root);
	json_array_foreach(json_object_get(root, "strings"), i, o)
	{
		const json_t *text = json_object_get(o, "text");
		const char *name = json_string_value(json_object_get(o, "name"));
		struct str want = { json_string_value(text), json_string_length(text) };
		size_t n;
		uint32_t *ids = ids_of(json_object_get(o, "ids"), &n);

		assert_int_equal(vocab_text(v, ids, n, &b), 0);
		free(ids);
		if (!rewritten(model, name) && !str_eq(buf_str(&b), want))
			fail_msg("%s: %s: text differs: %.*s", model, name, (int)buf_len(&b), buf_data(&b));
		compared += !rewritten(model, name);
		buf_consume(&b, buf_len(&b));
	}
	assert_true(compared >= 71);
	if (!str_eq(prefix, str_of(bos)))
		fail_msg("%s: prefix is \"%.*s\"", model, (int)prefix.n, prefix.p);
	json_decref(root);
	buf_free(&b);
}

static void real_tokenizers_give_the_text_back(void **state)
{
	static const struct {
		const char *model, *bos;
	} rows[] = {
		{ "qwen3", "" },
		{ "llama3_1", "<|begin_of_text|>" },
		{ "deepseek_v3", "<\xef\xbd\x9c"
				 "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>" },
		{ "mistral_nemo", "<s>" },
		{ "gemma3", "<bos>" },
		{ "gpt4o", "" },
	};
	const char *dir = getenv("KVS_TOKENIZERS");
	unsigned seen = 0;

	for (size_t i = 0; dir && i < sizeof(rows) / sizeof(rows[0]); i++) {
		char path[4096], err[256];
		struct vocab *v;

		snprintf(path, sizeof(path), "%s/%s/tokenizer.json", dir, rows[i].model);
		if (access(path, R_OK) != 0)
			continue;
		*strrchr(path, '/') = '\0';
		v = vocab_load(path, NULL, err, sizeof(err));
		if (!v)
			fail_msg("%s", err);
		check_model(v, rows[i].model, rows[i].bos);
		vocab_unref(v);
		seen++;
	}
	if (!seen) {
		print_message(
			"SKIP: no real tokenizer: KVS_TOKENIZERS=DIR with DIR/<model>/tokenizer.json is not given\n");
		skip();
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_level_tokens_are_their_bytes),
		cmocka_unit_test(sentencepiece_tokens_are_their_bytes),
		cmocka_unit_test(the_config_file_can_add_a_bos_and_tokens),
		cmocka_unit_test(text_is_all_or_nothing),
		cmocka_unit_test(every_byte_is_a_token_of_the_plain_table),
		cmocka_unit_test(the_bytes_tokenizer_is_the_plain_table),
		cmocka_unit_test(what_is_not_understood_is_refused_by_name),
		cmocka_unit_test(real_tokenizers_give_the_text_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
