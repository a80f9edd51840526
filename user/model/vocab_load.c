/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json → vocab.
 *
 * The file's `decoder` says what a token's spelling in `model.vocab` means:
 *   ByteLevel                    every character stands for one byte (GPT-2's alphabet)
 *   Sequence[Replace, ByteFallback, Fuse], Metaspace
 *                                U+2581 stands for a space, "<0x0A>" for a byte
 * `added_tokens` come last and win: their text is literal. (SentencePiece files list runs of U+2581 among them, which
 * the model meets as runs of spaces; those that are not `special` are decoded as the others are.)
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "model/vocab_int.h"

#define IDS_MAX (1u << 24)

enum spelling { BYTE_LEVEL, SENTENCEPIECE };

struct load {
	enum spelling spelling;
	int16_t byte_of[512]; /* code point → byte, -1: not in the alphabet */
	struct buf text;
	struct vocab_span *span;
	uint32_t n, cap;
	struct buf prefix;
	char *err;
	size_t err_len;
	const char *file;
};

static int fail(struct load *l, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct load *l, int r, const char *fmt, ...)
{
	char why[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	for (char *p = why; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	if (l->err_len)
		snprintf(l->err, l->err_len, "%s: %s", l->file, why);
	return r;
}

static const char *type_of(const json_t *o)
{
	const char *s = json_string_value(json_object_get(o, "type"));

	return s ? s : "";
}

/* Does <o> (a decoder, a normalizer …) or a part of it have that type? Sequences are flat in practice; the depth is
 * bounded all the same. */
static const json_t *find_type(const json_t *o, const char *type, int depth)
{
	static const char *const lists[] = { "decoders", "normalizers", "pretokenizers", "processors" };

	if (strcmp(type_of(o), type) == 0)
		return o;
	for (size_t i = 0; depth > 0 && i < sizeof(lists) / sizeof(lists[0]); i++) {
		const json_t *list = json_object_get(o, lists[i]);
		const json_t *part, *hit;
		size_t at;

		json_array_foreach(list, at, part)
		{
			hit = find_type(part, type, depth - 1);
			if (hit)
				return hit;
		}
	}
	return NULL;
}

static void byte_alphabet(struct load *l)
{
	int next = 256;

	for (int i = 0; i < 512; i++)
		l->byte_of[i] = -1;
	for (int b = 0; b < 256; b++) {
		bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;

		l->byte_of[printable ? b : next++] = (int16_t)b;
	}
}

/* Every character of the alphabet is one or two bytes of UTF-8. As the tokenizers library does, a token with any other
 * character in it stands for itself. */
static size_t decode_byte_level(const struct load *l, const char *s, size_t n, char *to)
{
	size_t out = 0;

	for (size_t i = 0; i < n;) {
		unsigned c = (unsigned char)s[i];
		size_t step = 1;

		if (c >= 0xc2 && c <= 0xc7 && i + 1 < n) {
			c = (c & 0x1f) << 6 | ((unsigned char)s[i + 1] & 0x3f);
			step = 2;
		}
		if ((c >= 0x80 && step == 1) || l->byte_of[c] < 0) {
			memcpy(to, s, n);
			return n;
		}
		to[out++] = (char)l->byte_of[c];
		i += step;
	}
	return out;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t decode_sentencepiece(const char *s, size_t n, char *to)
{
	size_t out = 0;

	if (n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && hex(s[3]) >= 0 && hex(s[4]) >= 0) {
		*to = (char)(hex(s[3]) << 4 | hex(s[4]));
		return 1;
	}
	for (size_t i = 0; i < n;) {
		if (n - i >= 3 && memcmp(s + i, "\xe2\x96\x81", 3) == 0) {
			to[out++] = ' ';
			i += 3;
		} else {
			to[out++] = s[i++];
		}
	}
	return out;
}

static int put_token(struct load *l, json_int_t id, const char *s, size_t n, bool literal)
{
	char *to;

	if (id < 0 || id >= IDS_MAX)
		return fail(l, -ERANGE, "token %.40s: id %lld is out of range", s, (long long)id);
	if ((uint32_t)id >= l->cap) {
		uint32_t cap = l->cap ? l->cap : 1024;
		struct vocab_span *more;

		while (cap <= (uint32_t)id)
			cap *= 2;
		more = realloc(l->span, cap * sizeof(*more));
		if (!more)
			return fail(l, -ENOMEM, "out of memory");
		memset(more + l->cap, 0, (cap - l->cap) * sizeof(*more));
		l->span = more;
		l->cap = cap;
	}
	if ((uint32_t)id >= l->n)
		l->n = (uint32_t)id + 1;
	to = buf_room(&l->text, n + 1);
	if (!to)
		return fail(l, -ENOMEM, "out of memory");
	if (literal)
		memcpy(to, s, n);
	else if (l->spelling == BYTE_LEVEL)
		n = decode_byte_level(l, s, n, to);
	else
		n = decode_sentencepiece(s, n, to);
	l->span[id] = (struct vocab_span){ (uint32_t)l->text.len, (uint32_t)n, true };
	buf_commit(&l->text, n);
	return l->text.len > UINT32_MAX / 4 ? fail(l, -EFBIG, "more than 1 GiB of token text") : 0;
}

static int read_spelling(struct load *l, const json_t *root, const json_t *model)
{
	const json_t *decoder = json_object_get(root, "decoder");
	const json_t *pre = json_object_get(root, "pre_tokenizer");
	const char *type = type_of(model);
	static const char *const affix[] = { "continuing_subword_prefix", "end_of_word_suffix" };

	if (strcmp(type, "BPE") != 0 && !(*type == '\0' && json_is_array(json_object_get(model, "merges"))))
		return fail(l, -EOPNOTSUPP, "model.type is \"%s\"; only BPE is understood", type);
	for (int i = 0; i < 2; i++) {
		const char *s = json_string_value(json_object_get(model, affix[i]));

		if (s && *s)
			return fail(l, -EOPNOTSUPP, "model.%s \"%s\" is not understood", affix[i], s);
	}
	if (find_type(decoder, "ByteLevel", 2) || (json_is_null(decoder) && find_type(pre, "ByteLevel", 2))) {
		l->spelling = BYTE_LEVEL;
		return 0;
	}
	if (find_type(decoder, "ByteFallback", 2) || find_type(decoder, "Metaspace", 2)) {
		l->spelling = SENTENCEPIECE;
		return 0;
	}
	return fail(l, -EOPNOTSUPP, "decoder.type \"%s\" is neither byte-level nor SentencePiece's", type_of(decoder));
}

static int read_tokens(struct load *l, const json_t *root)
{
	const json_t *model = json_object_get(root, "model");
	json_t *vocab = json_object_get(model, "vocab");
	const json_t *added = json_object_get(root, "added_tokens");
	const json_t *o, *id;
	const char *key;
	size_t i;
	int r;

	if (!json_is_object(model))
		return fail(l, -EINVAL, "no \"model\" object in it");
	r = read_spelling(l, root, model);
	if (r)
		return r;
	if (!json_is_object(vocab))
		return fail(l, -EINVAL, "model.vocab is not an object");
	json_object_foreach(vocab, key, id)
	{
		if (!json_is_integer(id))
			return fail(l, -EINVAL, "model.vocab: the id of token %.40s is not an integer", key);
		r = put_token(l, json_integer_value(id), key, strlen(key), false);
		if (r)
			return r;
	}
	json_array_foreach(added, i, o)
	{
		const json_t *text = json_object_get(o, "content");

		id = json_object_get(o, "id");
		if (!json_is_integer(id) || !json_is_string(text))
			return fail(l, -EINVAL, "added_tokens[%zu] has no id or no content", i);
		r = put_token(l, json_integer_value(id), json_string_value(text), json_string_length(text),
			      l->spelling == BYTE_LEVEL || json_is_true(json_object_get(o, "special")));
		if (r)
			return r;
	}
	return l->n ? 0 : fail(l, -EINVAL, "no token in it");
}

static int prefix_put(struct load *l, struct str s)
{
	return buf_put(&l->prefix, s.p, s.n) ? fail(l, -ENOMEM, "out of memory") : 0;
}

static int prefix_token(struct load *l, json_int_t id)
{
	const struct vocab_span *s;

	if (id < 0 || id >= l->n || !l->span[id].known)
		return fail(l, -EINVAL, "post_processor names token %lld, which does not exist", (long long)id);
	s = &l->span[id];
	return prefix_put(l, (struct str){ l->text.mem + s->off, s->len });
}

/* What TemplateProcessing puts before the first sequence. */
static int read_template(struct load *l, const json_t *t)
{
	const json_t *specials = json_object_get(t, "special_tokens");
	const json_t *item, *id;
	size_t i, k;

	json_array_foreach(json_object_get(t, "single"), i, item)
	{
		const json_t *special = json_object_get(item, "SpecialToken");
		const char *name = json_string_value(json_object_get(special, "id"));
		const json_t *ids = json_object_get(name ? json_object_get(specials, name) : NULL, "ids");

		if (!special)
			break;
		if (!json_is_array(ids))
			return fail(l, -EINVAL, "post_processor.single[%zu]: its special token has no ids", i);
		json_array_foreach(ids, k, id)
		{
			int r = prefix_token(l, json_integer_value(id));

			if (r)
				return r;
		}
	}
	return 0;
}

static int read_post_processor(struct load *l, const json_t *p, int depth)
{
	const char *type = type_of(p);
	const json_t *part;
	size_t i;
	int r = 0;

	if (!p || json_is_null(p) || strcmp(type, "ByteLevel") == 0)
		return 0;
	if (strcmp(type, "TemplateProcessing") == 0)
		return read_template(l, p);
	if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
		return prefix_token(l, json_integer_value(json_array_get(json_object_get(p, "cls"), 1)));
	if (strcmp(type, "Sequence") != 0 || depth == 0)
		return fail(l, -EOPNOTSUPP, "post_processor.type \"%s\" is not understood", type);
	json_array_foreach(json_object_get(p, "processors"), i, part)
	{
		r = read_post_processor(l, part, depth - 1);
		if (r)
			break;
	}
	return r;
}

/* The space that some tokenizers put before the text. */
static bool puts_space(const json_t *root)
{
	const json_t *pre = json_object_get(root, "pre_tokenizer");
	const json_t *meta = find_type(pre, "Metaspace", 2);
	const char *scheme = json_string_value(json_object_get(meta, "prepend_scheme"));

	if (find_type(json_object_get(root, "normalizer"), "Prepend", 2))
		return true;
	if (meta)
		return scheme ? strcmp(scheme, "never") != 0
			      : !json_is_false(json_object_get(meta, "add_prefix_space"));
	return json_is_true(json_object_get(find_type(pre, "ByteLevel", 2), "add_prefix_space"));
}

/* tokenizer_config.json: tokens that tokenizer.json does not have, and whether there is a BOS after all. */
static int read_config(struct load *l, const json_t *c)
{
	const json_t *want = json_object_get(c, "add_bos_token");
	const json_t *bos = json_object_get(c, "bos_token");
	json_t *more = json_object_get(c, "added_tokens_decoder");
	const json_t *o;
	const char *key;
	int r;

	json_object_foreach(more, key, o)
	{
		const json_t *text = json_object_get(o, "content");
		uint64_t id;

		if (str_u64(str_of(key), &id) || !json_is_string(text) || (id < l->n && l->span[id].known))
			continue;
		r = put_token(l, id < IDS_MAX ? (json_int_t)id : IDS_MAX, json_string_value(text),
			      json_string_length(text), true);
		if (r)
			return r;
	}
	if (json_is_object(bos))
		bos = json_object_get(bos, "content");
	if (json_is_false(want))
		buf_consume(&l->prefix, buf_len(&l->prefix));
	else if (json_is_true(want) && !buf_len(&l->prefix) && json_is_string(bos))
		return prefix_put(l, (struct str){ json_string_value(bos), json_string_length(bos) });
	return 0;
}

static json_t *read_json(struct load *l, size_t flags)
{
	json_error_t e;
	json_t *root = json_load_file(l->file, JSON_ALLOW_NUL | flags, &e);

	if (!root) {
		if (json_error_code(&e) == json_error_cannot_open_file)
			fail(l, -ENOENT, "cannot be opened");
		else
			fail(l, -EINVAL, "line %d, column %d: %s", e.line, e.column, e.text);
		errno = json_error_code(&e) == json_error_cannot_open_file ? ENOENT : EINVAL;
	} else if (!json_is_object(root)) {
		fail(l, -EINVAL, "not a JSON object");
		json_decref(root);
		root = NULL;
		errno = EINVAL;
	}
	return root;
}

static int load_dir(struct load *l, const char *dir)
{
	char path[4096];
	struct stat st;
	json_t *root;
	bool space;
	int r;

	l->file = path;
	if (snprintf(path, sizeof(path), "%s/tokenizer.json", dir) >= (int)sizeof(path)) {
		l->file = "tokenizer.json";
		return fail(l, -ENAMETOOLONG, "the directory's name is too long");
	}
	root = read_json(l, 0);
	if (!root)
		return -errno;
	r = read_tokens(l, root);
	if (!r)
		r = read_post_processor(l, json_object_get(root, "post_processor"), 2);
	space = puts_space(root);
	json_decref(root);
	if (r)
		return r;

	snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
	if (stat(path, &st) == 0) {
		/* model_max_length is often 10^30. */
		root = read_json(l, JSON_DECODE_INT_AS_REAL);
		if (!root)
			return -errno;
		r = read_config(l, root);
		json_decref(root);
	}
	return !r && space ? prefix_put(l, STR(" ")) : r;
}

struct vocab *vocab_load(const char *dir, char *err, size_t err_len)
{
	struct load l = { .err = err, .err_len = err_len };
	struct vocab *v = NULL;
	int r;

	byte_alphabet(&l);
	r = load_dir(&l, dir);
	if (!r) {
		v = vocab_make(l.text.mem, l.span, l.n, buf_str(&l.prefix));
		if (!v) {
			r = -errno;
			l.file = dir;
			fail(&l, r, "no memory for %u tokens", l.n);
		}
	}
	buf_free(&l.text);
	buf_free(&l.prefix);
	free(l.span);
	if (r)
		errno = -r;
	return v;
}
