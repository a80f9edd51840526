/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>

#include "config/config_int.h"

#define WORD_MAX 32

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits between two words: a letter more, less, other, or two swapped. '_' is '-', case does not count. */
static unsigned distance(const char *a, const char *b)
{
	unsigned d[3][WORD_MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX;
	for (unsigned j = 0; j <= m; j++)
		d[0][j] = j;
	for (unsigned i = 1; i <= n; i++) {
		unsigned *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];

		row[0] = i;
		for (unsigned j = 1; j <= m; j++) {
			int ca = a[i - 1] == '_' ? '-' : tolower((unsigned char)a[i - 1]);
			int cb = (unsigned char)b[j - 1];

			row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + (ca != cb));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < row[j])
				row[j] = up2[j - 2] + 1;
		}
	}
	return d[n % 3][m];
}

const char *suggest(const char *word, const char *const *words)
{
	size_t len = strlen(word);
	unsigned best = len < 3 ? 2 : (unsigned)len / 3 + 1;
	const char *ret = NULL;

	for (; *words; words++) {
		unsigned d = distance(word, *words);

		if (d < best) {
			best = d;
			ret = *words;
		}
	}
	return ret;
}

/* The words that may follow <prefix> ("" or "limits.") in <s>, each once. */
static unsigned words_at(const struct section *s, struct str prefix, char words[][WORD_MAX], unsigned cap)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->n && n < cap; i++) {
		const char *k = s->opts[i].key;
		size_t len;

		if (s->opts[i].type == OPT_LATER || strncmp(k, prefix.p, prefix.n) != 0)
			continue;
		k += prefix.n;
		len = strcspn(k, ".");
		if (len >= WORD_MAX || (n && strlen(words[n - 1]) == len && !memcmp(words[n - 1], k, len)))
			continue;
		memcpy(words[n], k, len);
		words[n++][len] = '\0';
	}
	return n;
}

/* Where in the table is <key> the last word of an option? */
static bool elsewhere(struct buf *out, const struct section *s, const char *where, const char *key)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct option *o = &s->opts[i];
		const char *last = strrchr(o->key, '.');
		char path[128];

		if (o->type != OPT_LATER && strcmp(last ? last + 1 : o->key, key) == 0) {
			buf_printf(out, ", it belongs to %s%s", where, o->key);
			return true;
		}
		if (o->type != OPT_LIST)
			continue;
		snprintf(path, sizeof(path), "%s%s[].", where, o->key);
		if (elsewhere(out, o->list, path, key))
			return true;
	}
	return false;
}

void suggest_option(struct buf *out, const struct section *s, struct str prefix, const char *key)
{
	char words[32][WORD_MAX];
	const char *list[33], *near;
	unsigned n = words_at(s, prefix, words, 32);

	for (unsigned i = 0; i < n; i++)
		list[i] = words[i];
	list[n] = NULL;
	near = suggest(key, list);
	if (near) {
		buf_printf(out, ", did you mean \"%s\"?", near);
		return;
	}
	if (s != &section_pod && elsewhere(out, &section_root, "", key))
		return;
	buf_puts(out, ", allowed here: ");
	for (unsigned i = 0; i < n; i++)
		buf_printf(out, "%s%s", i ? ", " : "", list[i]);
}
