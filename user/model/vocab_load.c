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

#include "model/load_int.h"

int load_fail(struct load *l, int r, const char *fmt, ...)
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

const char *load_type(const json_t *o)
{
	const char *s = json_string_value(json_object_get(o, "type"));

	return s ? s : "";
}

/* Does <o> (a decoder, a normalizer …) or a part of it have that type? Sequences are flat in practice; the depth is
 * bounded all the same. */
static const json_t *find_type(const json_t *o, const char *type, int depth)
{
	static const char *const lists[] = { "decoders", "normalizers", "pretokenizers", "processors" };

	if (strcmp(load_type(o), type) == 0)
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

		l->letter_of[b] = (uint16_t)(printable ? b : next++);
		l->byte_of[l->letter_of[b]] = (int16_t)b;
	}
}

/* Every character of the alphabet is one or two bytes of UTF-8. As the tokenizers library does, a token with any other
 * character in it stands for itself. */
static size_t decode_byte_level(const struct load *l, const char *s, size_t n, char *to, bool *ret_word)
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
			*ret_word = false;
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

/* As text has no space left when it is merged, a spelling with one is never arrived at. */
static size_t decode_sentencepiece(const char *s, size_t n, char *to, bool *ret_word)
{
	size_t out = 0;

	*ret_word = !memchr(s, ' ', n);
	if (n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && hex(s[3]) >= 0 && hex(s[4]) >= 0) {
		*to = (char)(hex(s[3]) << 4 | hex(s[4]));
		*ret_word = false;
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

struct str load_text(const struct load *l, uint32_t id)
{
	return (struct str){ buf_data(&l->text) + l->span[id].off, l->span[id].len };
}

static int put_token(struct load *l, json_int_t id, const char *s, size_t n, bool literal)
{
	bool word = !literal;
	struct span *old;
	char *to;

	if (id < 0 || id >= IDS_MAX)
		return load_fail(l, -ERANGE, "token %.40s: id %lld is out of range", s, (long long)id);
	if ((uint32_t)id >= l->cap) {
		uint32_t cap = l->cap ? l->cap : 1024;
		struct span *more;

		while (cap <= (uint32_t)id)
			cap *= 2;
		more = realloc(l->span, cap * sizeof(*more));
		if (!more)
			return load_fail(l, -ENOMEM, "out of memory");
		memset(more + l->cap, 0, (cap - l->cap) * sizeof(*more));
		l->span = more;
		l->cap = cap;
	}
	if ((uint32_t)id >= l->n)
		l->n = (uint32_t)id + 1;
	to = buf_room(&l->text, n + 1);
	if (!to)
		return load_fail(l, -ENOMEM, "out of memory");
	if (literal)
		memcpy(to, s, n);
	else if (l->spelling == BYTE_LEVEL)
		n = decode_byte_level(l, s, n, to, &word);
	else
		n = decode_sentencepiece(s, n, to, &word);
	old = &l->span[id];
	if (old->known)
		word = old->word && str_eq(load_text(l, (uint32_t)id), (struct str){ to, n });
	*old = (struct span){ (uint32_t)l->text.len, (uint32_t)n, true, word };
	buf_commit(&l->text, n);
	return l->text.len > UINT32_MAX / 4 ? load_fail(l, -EFBIG, "more than 1 GiB of token text") : 0;
}

static int read_spelling(struct load *l, const json_t *root, const json_t *model)
{
	const json_t *decoder = json_object_get(root, "decoder");
	const json_t *pre = json_object_get(root, "pre_tokenizer");
	const char *type = load_type(model);
	static const char *const affix[] = { "continuing_subword_prefix", "end_of_word_suffix" };

	if (strcmp(type, "BPE") != 0 && !(*type == '\0' && json_is_array(json_object_get(model, "merges"))))
		return load_fail(l, -EOPNOTSUPP, "model.type is \"%s\"; only BPE is understood", type);
	for (int i = 0; i < 2; i++) {
		const char *s = json_string_value(json_object_get(model, affix[i]));

		if (s && *s)
			return load_fail(l, -EOPNOTSUPP, "model.%s \"%s\" is not understood", affix[i], s);
	}
	if (find_type(decoder, "ByteLevel", 2) || (json_is_null(decoder) && find_type(pre, "ByteLevel", 2))) {
		l->spelling = BYTE_LEVEL;
		return 0;
	}
	if (find_type(decoder, "ByteFallback", 2) || find_type(decoder, "Metaspace", 2)) {
		l->spelling = SENTENCEPIECE;
		return 0;
	}
	return load_fail(l, -EOPNOTSUPP, "decoder.type \"%s\" is neither byte-level nor SentencePiece's",
			 load_type(decoder));
}

static struct str json_str(const json_t *s)
{
	return (struct str){ json_string_value(s), json_string_length(s) };
}

static int put_added(struct load *l, uint32_t id, const json_t *o)
{
	static const struct {
		const char *key;
		unsigned flag;
	} flags[] = { { "lstrip", ADDED_LSTRIP }, { "rstrip", ADDED_RSTRIP } };
	const json_t *text = json_object_get(o, "content");
	struct load_added a = { .id = id, .off = (uint32_t)buf_len(&l->contents) };

	for (int i = 0; i < 2; i++)
		if (json_is_true(json_object_get(o, flags[i].key)))
			a.flags |= flags[i].flag;
	a.single_word = json_is_true(json_object_get(o, "single_word"));
	a.normalized = json_is_true(json_object_get(o, "normalized"));
	a.len = (uint32_t)json_string_length(text);
	if (buf_put(&l->contents, json_string_value(text), a.len) || buf_put(&l->added, &a, sizeof(a)))
		return load_fail(l, -ENOMEM, "out of memory");
	return 0;
}

static const struct load_added *find_added(const struct load *l, struct str text)
{
	const struct load_added *a = (const void *)buf_data(&l->added), *end = a + buf_len(&l->added) / sizeof(*a);

	for (; a < end; a++)
		if (str_eq(text, (struct str){ buf_data(&l->contents) + a->off, a->len }))
			return a;
	return NULL;
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
		return load_fail(l, -EINVAL, "no \"model\" object in it");
	r = read_spelling(l, root, model);
	if (r)
		return r;
	if (!json_is_object(vocab))
		return load_fail(l, -EINVAL, "model.vocab is not an object");
	json_object_foreach(vocab, key, id)
	{
		if (!json_is_integer(id))
			return load_fail(l, -EINVAL, "model.vocab: the id of token %.40s is not an integer", key);
		r = put_token(l, json_integer_value(id), key, strlen(key), false);
		if (r)
			return r;
	}
	json_array_foreach(added, i, o)
	{
		const json_t *text = json_object_get(o, "content");

		id = json_object_get(o, "id");
		if (!json_is_integer(id) || !json_is_string(text))
			return load_fail(l, -EINVAL, "added_tokens[%zu] has no id or no content", i);
		r = put_token(l, json_integer_value(id), json_string_value(text), json_string_length(text),
			      l->spelling == BYTE_LEVEL || json_is_true(json_object_get(o, "special")));
		if (!r)
			r = put_added(l, (uint32_t)json_integer_value(id), o);
		id = json_object_get(vocab, json_string_value(text));
		if (id && json_integer_value(id) != json_integer_value(json_object_get(o, "id")))
			snprintf(l->why, sizeof(l->why), "added_tokens[%zu]: model.vocab has it with another id", i);
		if (r)
			return r;
	}
	return l->n ? 0 : load_fail(l, -EINVAL, "no token in it");
}

static int prefix_put(struct load *l, struct str s)
{
	return buf_put(&l->prefix, s.p, s.n) ? load_fail(l, -ENOMEM, "out of memory") : 0;
}

static int special_token(struct load *l, json_int_t id, bool before)
{
	uint32_t u = (uint32_t)id;

	if (id < 0 || id >= l->n || !l->span[id].known)
		return load_fail(l, -EINVAL, "post_processor names token %lld, which does not exist", (long long)id);
	if (buf_put(before ? &l->before : &l->after, &u, sizeof(u)))
		return load_fail(l, -ENOMEM, "out of memory");
	return before ? prefix_put(l, load_text(l, u)) : 0;
}

/* What TemplateProcessing puts around the first sequence. */
static int read_template(struct load *l, const json_t *t)
{
	const json_t *specials = json_object_get(t, "special_tokens");
	const json_t *item, *id;
	bool before = true;
	size_t i, k;

	json_array_foreach(json_object_get(t, "single"), i, item)
	{
		const json_t *special = json_object_get(item, "SpecialToken");
		const char *name = json_string_value(json_object_get(special, "id"));
		const json_t *ids = json_object_get(name ? json_object_get(specials, name) : NULL, "ids");

		if (!special) {
			before = false;
			continue;
		}
		if (!json_is_array(ids))
			return load_fail(l, -EINVAL, "post_processor.single[%zu]: its special token has no ids", i);
		json_array_foreach(ids, k, id)
		{
			int r = special_token(l, json_integer_value(id), before);

			if (r)
				return r;
		}
	}
	return 0;
}

static int read_post_processor(struct load *l, const json_t *p, int depth)
{
	const char *type = load_type(p);
	const json_t *part;
	size_t i;
	int r = 0;

	if (!p || json_is_null(p) || strcmp(type, "ByteLevel") == 0)
		return 0;
	if (strcmp(type, "TemplateProcessing") == 0)
		return read_template(l, p);
	if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
		r = special_token(l, json_integer_value(json_array_get(json_object_get(p, "cls"), 1)), true);
		return r ? r
			 : special_token(l, json_integer_value(json_array_get(json_object_get(p, "sep"), 1)), false);
	}
	if (strcmp(type, "Sequence") != 0 || depth == 0)
		return load_fail(l, -EOPNOTSUPP, "post_processor.type \"%s\" is not understood", type);
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

		if (str_u64(str_of(key), &id) || !json_is_string(text) || find_added(l, json_str(text)))
			continue;
		if (id >= l->n || !l->span[id].known) {
			r = put_token(l, id < IDS_MAX ? (json_int_t)id : IDS_MAX, json_string_value(text),
				      json_string_length(text), true);
			if (r)
				return r;
		}
		r = put_added(l, (uint32_t)id, o);
		if (r)
			return r;
	}
	if (json_is_object(bos))
		bos = json_object_get(bos, "content");
	if (json_is_false(want)) {
		buf_consume(&l->prefix, buf_len(&l->prefix));
		buf_consume(&l->before, buf_len(&l->before));
	} else if (json_is_true(want) && !buf_len(&l->prefix) && json_is_string(bos)) {
		const struct load_added *a = find_added(l, json_str(bos));

		if (a)
			return special_token(l, a->id, true);
		snprintf(l->why, sizeof(l->why), "tokenizer_config.json: bos_token is no added token");
		return prefix_put(l, json_str(bos));
	}
	return 0;
}

static json_t *read_json(struct load *l, size_t flags)
{
	json_error_t e;
	json_t *root = json_load_file(l->file, JSON_ALLOW_NUL | flags, &e);

	if (!root) {
		if (json_error_code(&e) == json_error_cannot_open_file)
			load_fail(l, -ENOENT, "cannot be opened");
		else
			load_fail(l, -EINVAL, "line %d, column %d: %s", e.line, e.column, e.text);
		errno = json_error_code(&e) == json_error_cannot_open_file ? ENOENT : EINVAL;
	} else if (!json_is_object(root)) {
		load_fail(l, -EINVAL, "not a JSON object");
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
		return load_fail(l, -ENAMETOOLONG, "the directory's name is too long");
	}
	root = read_json(l, 0);
	if (!root)
		return -errno;
	r = read_tokens(l, root);
	if (!r)
		r = read_post_processor(l, json_object_get(root, "post_processor"), 2);
	if (!r)
		r = load_encoder(l, root);
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

static struct image *image_of(struct load *l, const uint64_t source[2])
{
	uint32_t *off = malloc(((size_t)l->n + 1) * sizeof(*off));
	struct str part[IMG_PARTS] = { 0 };
	struct buf text = { 0 };
	struct image *g = NULL;
	int r = off ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < l->n && !r; i++) {
		off[i] = (uint32_t)buf_len(&text) | (l->span[i].known ? 0 : HOLE);
		r = buf_put(&text, load_text(l, i).p, l->span[i].len);
	}
	if (!r) {
		off[l->n] = (uint32_t)buf_len(&text);
		for (int i = 0; i < IMG_PARTS && !*l->why; i++)
			part[i] = buf_str(&l->part[i]);
		part[IMG_OFF] = (struct str){ (char *)off, ((size_t)l->n + 1) * sizeof(*off) };
		part[IMG_TEXT] = buf_str(&text);
		part[IMG_PREFIX] = buf_str(&l->prefix);
		part[IMG_WHY] = (struct str){ l->why, *l->why ? strlen(l->why) + 1 : 0 };
		part[IMG_NAME] = str_of(l->name);
		part[IMG_BEFORE] = buf_str(&l->before);
		part[IMG_AFTER] = buf_str(&l->after);
		g = image_make(&l->rules, l->n, source, part);
	}
	free(off);
	buf_free(&text);
	errno = g ? 0 : ENOMEM;
	return g;
}

/* Which words are one token is found by merging, with an image that has all but that. */
static struct image *compile(struct load *l, const uint64_t source[2])
{
	static const struct word_slot none = { 0, NO_ID };
	struct image *g;
	struct vocab *v;
	int r = *l->why ? 0 : load_added(l);

	if (!r && !*l->why)
		r = buf_put(&l->part[IMG_WORDS], &none, sizeof(none));
	g = r ? NULL : image_of(l, source);
	if (!g || *l->why)
		return g;
	v = vocab_adopt(g, false);
	if (!v)
		return NULL;
	r = load_words(l, v);
	vocab_unref(v);
	return r ? NULL : image_of(l, source);
}

struct image *image_compile(const char *dir, const uint64_t source[2], char *err, size_t err_len)
{
	struct load l = { .err = err, .err_len = err_len };
	struct image *g = NULL;
	int r;

	byte_alphabet(&l);
	l.name = realpath(dir, NULL);
	r = load_dir(&l, dir);
	if (!r) {
		g = compile(&l, source);
		if (!g) {
			r = -ENOMEM;
			l.file = dir;
			load_fail(&l, r, "no memory for %u tokens", l.n);
		}
	}
	buf_free(&l.text);
	buf_free(&l.prefix);
	free(l.name);
	buf_free(&l.before);
	buf_free(&l.after);
	buf_free(&l.added);
	buf_free(&l.contents);
	for (int i = 0; i < IMG_PARTS; i++)
		buf_free(&l.part[i]);
	free(l.span);
	if (r)
		errno = -r;
	return g;
}
