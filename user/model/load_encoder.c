/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json → what the encoder needs. Every part of the file that bears on the result is either known here or
 * named in l->why; nothing is passed over because it is not understood.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/encoder_int.h"
#include "model/load_int.h"
#include "model/unicode.h"

#define UNDERSCORE "\xe2\x96\x81" /* U+2581 */

static int refuse(struct load *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct load *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->why, sizeof(l->why), fmt, ap);
	va_end(ap);
	for (char *p = l->why; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	return 0;
}

static bool is_true(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

static const char *string_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* --- normalizer --- */

static bool replaces_spaces(const json_t *o)
{
	return strcmp(load_type(o), "Replace") == 0 &&
	       strcmp(string_of(json_object_get(o, "pattern"), "String"), " ") == 0 &&
	       strcmp(string_of(o, "content"), UNDERSCORE) == 0;
}

static int read_normalizer(struct load *l, const json_t *o)
{
	const json_t *list = strcmp(load_type(o), "Sequence") == 0 ? json_object_get(o, "normalizers") : NULL;
	size_t n = list ? json_array_size(list) : !json_is_null(o) && o;
	struct image_rules *r = &l->rules;

	for (size_t i = 0; i < n; i++) {
		const json_t *part = list ? json_array_get(list, i) : o;
		const char *type = load_type(part);

		if (strcmp(type, "NFC") == 0 && n == 1)
			r->normal = NORMAL_NFC;
		else if (strcmp(type, "Prepend") == 0 && i == 0 && n == 2 && l->spelling == SENTENCEPIECE &&
			 strcmp(string_of(part, "prepend"), UNDERSCORE) == 0)
			r->prepend = PREPEND_NORMAL;
		else if (replaces_spaces(part) && i + 1 == n && l->spelling == SENTENCEPIECE)
			r->normal = NORMAL_SPACES;
		else
			return refuse(l, "normalizer \"%s\" is not known at that place", type);
	}
	if (r->prepend == PREPEND_NORMAL && r->normal != NORMAL_SPACES)
		return refuse(l, "normalizer \"Prepend\" is not known without \"Replace\"");
	return 0;
}

/* --- pre-tokenizer --- */

#define CONTRACTED  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL	    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER	    "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER	    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD	    "[^\\r\\n\\p{L}\\p{N}]?"
#define LLAMA(nums) CONTRACTED "|" LEAD "\\p{L}+|" nums "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" TAIL
#define O200K(tail, nums)                                                        \
	LEAD UPPER "*" LOWER "+" tail "|" LEAD UPPER "+" LOWER "*" tail "|" nums \
		   "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" TAIL
#define DEEPSEEK                                                                                            \
	"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+" \
	"| ?[\\p{P}\\p{S}]+[\\r\\n]*|" TAIL

static const struct pattern {
	const char *text;
	uint8_t scheme, digits, marks_are_letters, contractions;
} patterns[] = {
	{ LLAMA("\\p{N}{1,3}"), SCHEME_LLAMA, 3, 0, 0 },
	{ LLAMA("\\p{N}"), SCHEME_LLAMA, 1, 0, 0 },
	{ CONTRACTED "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" TAIL, SCHEME_LLAMA, 1, 1,
	  0 },
	{ O200K(CONTRACTED "?", "\\p{N}{1,3}"), SCHEME_O200K, 3, 0, 1 },
	{ O200K("", "\\p{N}{1,3}"), SCHEME_O200K, 3, 0, 0 },
	{ O200K("", "\\p{N}"), SCHEME_O200K, 1, 0, 0 },
	{ "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", SCHEME_GPT2, 0, 0, 0 },
};
static const char *const deepseek[] = { "\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK };

/* Line ends are written as themselves or as escapes. */
static bool pattern_is(const char *s, const char *want)
{
	for (; *s && *want; s++, want++) {
		if (want[0] == '\\' && (want[1] == 'r' || want[1] == 'n') && *s == (want[1] == 'r' ? '\r' : '\n')) {
			want++;
			continue;
		}
		if (*s != *want)
			return false;
		if (*s == '\\') { /* and what it escapes */
			s++, want++;
			if (*s != *want || !*s)
				return false;
		}
	}
	return *s == *want;
}

/* A Split that keeps everything that its pattern matches. */
static const char *split_pattern(const json_t *o, bool gaps)
{
	const char *how = string_of(o, "behavior");
	bool invert = is_true(o, "invert");

	if (strcmp(load_type(o), "Split") != 0)
		return NULL;
	if (!(strcmp(how, "Isolated") == 0 && !invert) && !(strcmp(how, "Removed") == 0 && invert && !gaps))
		return NULL;
	return json_string_value(json_object_get(json_object_get(o, "pattern"), "Regex"));
}

static int read_splits(struct load *l, const json_t *list, size_t n)
{
	const char *p = split_pattern(json_array_get(list, 0), n > 1);

	for (size_t i = 0; n == 1 && p && i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		const struct pattern *k = &patterns[i];

		if (pattern_is(p, k->text)) {
			l->rules.scheme = k->scheme;
			l->rules.digits = k->digits;
			l->rules.marks_are_letters = k->marks_are_letters;
			l->rules.contractions = k->contractions;
			return 0;
		}
	}
	for (size_t i = 0; n == 3 && i < n; i++) {
		p = split_pattern(json_array_get(list, i), true);
		if (!p || !pattern_is(p, deepseek[i]))
			break;
		if (i == 2) {
			l->rules.scheme = SCHEME_DEEPSEEK;
			return 0;
		}
	}
	return refuse(l, "pre_tokenizer: its %zu \"%s\" with pattern %.120s are not known", n,
		      load_type(json_array_get(list, 0)), p ? p : "of another kind");
}

static int read_byte_level(struct load *l, const json_t *list, size_t n)
{
	const json_t *last = n ? json_array_get(list, n - 1) : NULL;
	const json_t *regex = json_object_get(last, "use_regex");

	if (strcmp(load_type(last), "ByteLevel") != 0)
		return refuse(l, "pre_tokenizer \"%s\" is not known", last ? load_type(last) : "null");
	if (is_true(last, "add_prefix_space"))
		return refuse(l, "pre_tokenizer \"ByteLevel\" with add_prefix_space is not known");
	if (n > 1 && json_is_false(regex))
		return read_splits(l, list, n - 1);
	if (n > 1)
		return refuse(l, "pre_tokenizer \"ByteLevel\" with use_regex after others is not known");
	l->rules.scheme = json_is_false(regex) ? SCHEME_WHOLE : SCHEME_GPT2;
	return 0;
}

static int read_metaspace(struct load *l, const json_t *o)
{
	const char *scheme = string_of(o, "prepend_scheme");
	struct image_rules *r = &l->rules;

	if (strcmp(string_of(o, "replacement"), UNDERSCORE) != 0)
		return refuse(l, "pre_tokenizer \"Metaspace\": its replacement is not U+2581");
	if (r->prepend != PREPEND_NEVER)
		return refuse(l, "pre_tokenizer \"Metaspace\" beside normalizer \"Prepend\" is not known");
	if (strcmp(scheme, "first") == 0)
		r->prepend = PREPEND_FIRST;
	else if (strcmp(scheme, "always") == 0 || (!*scheme && !json_is_false(json_object_get(o, "add_prefix_space"))))
		r->prepend = PREPEND_ALWAYS;
	else if (*scheme && strcmp(scheme, "never") != 0)
		return refuse(l, "pre_tokenizer \"Metaspace\": prepend_scheme \"%s\" is not known", scheme);
	r->scheme = json_is_false(json_object_get(o, "split")) ? SCHEME_WHOLE : SCHEME_SPACES;
	return 0;
}

static int read_pre_tokenizer(struct load *l, const json_t *o)
{
	const json_t *list = strcmp(load_type(o), "Sequence") == 0 ? json_object_get(o, "pretokenizers") : NULL;
	json_t *one = NULL;
	int r;

	if (l->spelling == SENTENCEPIECE) {
		/* Where the normalizer has replaced all spaces there is nothing to split at. */
		bool idle = strcmp(load_type(o), "Split") == 0 && l->rules.normal == NORMAL_SPACES &&
			    strcmp(string_of(json_object_get(o, "pattern"), "String"), " ") == 0;

		if (list && json_array_size(list) == 1)
			o = json_array_get(list, 0);
		if (strcmp(load_type(o), "Metaspace") == 0)
			return read_metaspace(l, o);
		if (o && !json_is_null(o) && !idle)
			return refuse(l, "pre_tokenizer \"%s\" is not known with this decoder", load_type(o));
		l->rules.scheme = SCHEME_WHOLE;
		return 0;
	}
	if (!list) {
		one = json_pack("[O]", o);
		if (!one)
			return o ? -ENOMEM : refuse(l, "pre_tokenizer is missing");
		list = one;
	}
	r = read_byte_level(l, list, json_array_size(list));
	json_decref(one);
	return r;
}

/* --- model --- */

static int read_options(struct load *l, const json_t *model)
{
	const json_t *dropout = json_object_get(model, "dropout");
	bool fallback = is_true(model, "byte_fallback");

	l->rules.ignore_merges = is_true(model, "ignore_merges");
	if (json_is_number(dropout) && json_number_value(dropout) != 0)
		return refuse(l, "model.dropout makes it random");
	if (l->spelling == BYTE_LEVEL)
		return 0;
	l->rules.characters = l->rules.spaces = 1;
	if (l->rules.normal != NORMAL_SPACES && l->rules.scheme == SCHEME_WHOLE && l->rules.prepend == PREPEND_NEVER)
		return refuse(l, "normalizer: nothing makes U+2581 of a space");
	if (!fallback)
		return refuse(l, "model.byte_fallback is off: unknown characters are not known");
	if (l->rules.ignore_merges)
		return refuse(l, "model.ignore_merges with byte_fallback is not known");
	return 0;
}

static uint32_t id_of(const json_t *vocab, const char *spelling)
{
	const json_t *id = json_object_get(vocab, spelling);

	return json_is_integer(id) ? (uint32_t)json_integer_value(id) : NO_ID;
}

static int read_bytes(struct load *l, const json_t *vocab)
{
	uint32_t id[256];

	for (unsigned b = 0; b < 256; b++) {
		char s[8];

		if (l->spelling == BYTE_LEVEL)
			s[utf8_put(s, l->letter_of[b])] = '\0';
		else
			snprintf(s, sizeof(s), "<0x%02X>", b);
		id[b] = id_of(vocab, s);
		if (id[b] == NO_ID && (b < 0xc0 || (b >= 0xc2 && b <= 0xf4)))
			return refuse(l, "model.vocab has no token for byte 0x%02x", b);
	}
	return buf_put(&l->part[IMG_BYTES], id, sizeof(id));
}

/* Room for <n> slots of <each> bytes of which at least 3 of 8 stay empty; all bytes are 0xff. Their number less one. */
static int make_slots(struct buf *part, size_t n, size_t each, uint32_t *ret_mask)
{
	size_t cap = 1;
	char *p;

	while (cap * 5 / 8 <= n)
		cap *= 2;
	p = buf_room(part, cap * each);
	if (!p)
		return -ENOMEM;
	memset(p, 0xff, cap * each);
	buf_commit(part, cap * each);
	*ret_mask = (uint32_t)cap - 1;
	return 0;
}

static bool one_char(struct str s, uint32_t *ret)
{
	unsigned len;
	bool cut;

	if (s.n == 0 || s.n > 4 || utf8_valid(s.p, s.n, &cut) != s.n)
		return false;
	*ret = utf8_char((const unsigned char *)s.p, &len);
	return len == s.n;
}

static int read_chars(struct load *l)
{
	struct char_slot *slot;
	uint32_t mask = 0, c;
	size_t n = 0;
	int r;

	for (uint32_t i = 0; i < l->n; i++)
		n += l->span[i].word && one_char(load_text(l, i), &c);
	r = make_slots(&l->part[IMG_CHARS], n, sizeof(*slot), &mask);
	if (r)
		return r;
	slot = (struct char_slot *)(void *)buf_data(&l->part[IMG_CHARS]);
	for (uint32_t i = 0, at; i < l->n; i++) {
		if (!l->span[i].word || !one_char(load_text(l, i), &c))
			continue;
		for (at = char_hash(c); slot[at & mask].id != NO_ID; at++)
			;
		slot[at & mask] = (struct char_slot){ c, i };
	}
	return 0;
}

/* "a b" or ["a", "b"]. <joined> has both, one behind the other. 0 or -EINVAL. */
static int merge_sides(const json_t *m, struct buf *left, struct buf *right, struct buf *joined)
{
	const char *s = json_string_value(m), *cut = s ? strchr(s, ' ') : NULL;
	struct str a, b;

	if (s) {
		if (!cut || strchr(cut + 1, ' '))
			return -EINVAL;
		a = (struct str){ s, (size_t)(cut - s) };
		b = str_of(cut + 1);
	} else {
		a = str_of(json_string_value(json_array_get(m, 0)));
		b = str_of(json_string_value(json_array_get(m, 1)));
		if (json_array_size(m) != 2 || !a.p || !b.p)
			return -EINVAL;
	}
	left->len = right->len = joined->len = 0;
	if (buf_put(left, a.p, a.n) || buf_put(left, "", 1) || buf_put(right, b.p, b.n) || buf_put(right, "", 1) ||
	    buf_put(joined, a.p, a.n) || buf_put(joined, b.p, b.n) || buf_put(joined, "", 1))
		return -ENOMEM;
	return 0;
}

/* May a merge reach over the place before a space that follows something else? */
static bool joins_at_space(const struct load *l, uint32_t left, uint32_t right)
{
	struct str a = load_text(l, left), b = load_text(l, right);

	return a.n && b.n && a.p[a.n - 1] != ' ' && b.p[0] == ' ';
}

static void put_merge(struct merge_slot *slot, uint32_t mask, const struct merge_slot *m)
{
	uint32_t at = merge_hash(m->left, m->right);

	while (slot[at & mask].id != NO_ID && (slot[at & mask].left != m->left || slot[at & mask].right != m->right))
		at++;
	slot[at & mask] = *m; /* the last of equals counts */
}

static int read_merges(struct load *l, const json_t *model)
{
	const json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges"), *m;
	struct buf side[3] = { 0 };
	struct merge_slot *slot;
	bool cut = id_of(vocab, UNDERSCORE) != NO_ID;
	uint32_t mask = 0;
	size_t i;
	int r = make_slots(&l->part[IMG_MERGES], json_array_size(merges), sizeof(*slot), &mask);

	slot = (struct merge_slot *)(void *)buf_data(&l->part[IMG_MERGES]);
	json_array_foreach(merges, i, m)
	{
		struct merge_slot to = { .rank = (uint32_t)i };

		r = r ? r : merge_sides(m, &side[0], &side[1], &side[2]);
		if (r)
			break;
		to.left = id_of(vocab, buf_data(&side[0]));
		to.right = id_of(vocab, buf_data(&side[1]));
		to.id = id_of(vocab, buf_data(&side[2]));
		if (to.left >= l->n || to.right >= l->n || to.id >= l->n) {
			r = -EINVAL;
			break;
		}
		cut &= !joins_at_space(l, to.left, to.right);
		put_merge(slot, mask, &to);
	}
	if (r == -EINVAL)
		r = refuse(l, "model.merges[%zu] is not made of two tokens of model.vocab that join to a third", i);
	l->rules.spaces_cut = l->rules.characters && cut;
	for (i = 0; i < 3; i++)
		buf_free(&side[i]);
	return r;
}

int load_encoder(struct load *l, const json_t *root)
{
	const json_t *model = json_object_get(root, "model");
	int r;

	unicode_init();
	r = read_normalizer(l, json_object_get(root, "normalizer"));
	if (!r && !*l->why)
		r = read_pre_tokenizer(l, json_object_get(root, "pre_tokenizer"));
	if (!r && !*l->why)
		r = read_options(l, model);
	if (!r && !*l->why)
		r = read_bytes(l, json_object_get(model, "vocab"));
	if (!r && !*l->why && l->rules.characters)
		r = read_chars(l);
	if (!r && !*l->why)
		r = read_merges(l, model);
	return r ? load_fail(l, r, "out of memory") : 0;
}

/* --- words that are one token --- */

int load_words(struct load *l, const struct vocab *v)
{
	struct buf *part = &l->part[IMG_WORDS], ids = { 0 }, work = { 0 };
	struct word_slot *slot;
	uint32_t mask = 0;
	int r;

	buf_free(part);
	r = make_slots(part, l->n, sizeof(*slot), &mask);
	slot = (struct word_slot *)(void *)buf_data(part);
	for (uint32_t i = 0; i < l->n && !r; i++) {
		struct str s = load_text(l, i);
		uint64_t hash = word_hash(s.p, s.n);
		uint32_t at = (uint32_t)hash;

		if (!l->span[i].word || !s.n)
			continue;
		if (!l->rules.ignore_merges) {
			bool cut;

			/* Characters that are cut off are no symbols. */
			if (l->rules.characters && utf8_valid(s.p, s.n, &cut) != s.n)
				continue;
			ids.len = ids.off = 0;
			r = bpe_merge(v, &work, s.p, s.n, &ids);
			r = r == -EILSEQ ? 0 : r;
			if (buf_len(&ids) != sizeof(i) || memcmp(buf_data(&ids), &i, sizeof(i)) != 0)
				continue;
		}
		while (slot[at & mask].id != NO_ID)
			at++;
		slot[at & mask] = (struct word_slot){ (uint32_t)(hash >> 32), i };
	}
	buf_free(&ids);
	buf_free(&work);
	return r;
}
