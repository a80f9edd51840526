/* SPDX-License-Identifier: Apache-2.0
 * Added tokens → two tries, one for the raw text and one for text in normal form. Contents are sorted; a node is a run
 * of them that begin alike, made by halving no pointers but ranges.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/load_int.h"
#include "model/unicode.h"

struct content {
	struct str text;
	uint32_t added; /* its index + 1 */
};

static int by_text(const void *x, const void *y)
{
	const struct content *a = x, *b = y;
	size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
	int o = n ? memcmp(a->text.p, b->text.p, n) : 0;

	if (o)
		return o;
	if (a->text.n != b->text.n)
		return a->text.n < b->text.n ? -1 : 1;
	return a->added < b->added ? -1 : 1; /* of equals the first */
}

/* The node of the contents c[0 … n), which agree in their first <depth> bytes. */
static int put_node(struct load *l, const struct content *c, size_t n, size_t depth, uint32_t *ret)
{
	struct buf *nodes = &l->part[IMG_NODES], *edges = &l->part[IMG_EDGES];
	struct trie_node node = { .edges = (uint32_t)(buf_len(edges) / sizeof(struct trie_edge)) };
	uint32_t at = (uint32_t)(buf_len(nodes) / sizeof(node));
	size_t i = 0, j;
	int r;

	if (c[0].text.n == depth)
		node.added = c[0].added;
	while (i < n && c[i].text.n == depth)
		i++;
	for (size_t k = i; k < n; k = j, node.n++)
		for (j = k + 1; j < n && c[j].text.p[depth] == c[k].text.p[depth]; j++)
			;
	r = buf_put(nodes, &node, sizeof(node));
	if (!r && node.n && !buf_room(edges, node.n * sizeof(struct trie_edge)))
		r = -ENOMEM;
	if (!r)
		buf_commit(edges, node.n * sizeof(struct trie_edge));
	for (uint32_t e = node.edges; i < n && !r; i = j, e++) {
		struct trie_edge edge = { .byte = (unsigned char)c[i].text.p[depth] };

		for (j = i + 1; j < n && c[j].text.p[depth] == c[i].text.p[depth]; j++)
			;
		r = put_node(l, c + i, j - i, depth + 1, &edge.node);
		memcpy(buf_data(edges) + e * sizeof(edge), &edge, sizeof(edge));
	}
	*ret = at;
	return r;
}

static int put_trie(struct load *l, struct content *c, size_t n)
{
	uint32_t root[256] = { 0 };
	size_t j;
	int r = 0;

	if (n)
		qsort(c, n, sizeof(*c), by_text);
	for (size_t i = 0; i < n && !r; i = j) {
		for (j = i + 1; j < n && c[j].text.p[0] == c[i].text.p[0]; j++)
			;
		r = put_node(l, c + i, j - i, 1, &root[(unsigned char)c[i].text.p[0]]);
	}
	return r ? r : buf_put(&l->part[IMG_ROOT], root, sizeof(root));
}

/* As the text that it is looked for in. */
static int put_normal(const struct load *l, struct str s, struct buf *out)
{
	const struct image_rules *r = &l->rules;
	int err = r->prepend == PREPEND_NORMAL ? buf_put(out, " ", 1) : 0;

	if (r->normal == NORMAL_NFC)
		return nfc_put(out, s.p, s.n);
	for (size_t i = 0; i < s.n && !err; i++) {
		if (r->normal == NORMAL_SPACES && s.n - i >= 3 && memcmp(s.p + i, "\xe2\x96\x81", 3) == 0) {
			err = buf_put(out, " ", 1);
			i += 2;
		} else {
			err = buf_put(out, s.p + i, 1);
		}
	}
	return err;
}

#define CONTENT_MAX 1024 /* bytes; the trie is as deep */

int load_added(struct load *l)
{
	const struct load_added *a = (const void *)buf_data(&l->added);
	size_t n = buf_len(&l->added) / sizeof(*a), raw = 0, other = 0;
	struct content *c = calloc(2 * n + 1, sizeof(*c)), *d = c ? c + n : NULL;
	struct buf normal = { 0 };
	struct trie_node unused = { 0 };
	int r = c ? buf_put(&l->part[IMG_NODES], &unused, sizeof(unused)) : -ENOMEM;

	/* No pointer into <normal> before it is whole. */
	for (size_t i = 0; i < n && !r; i++) {
		struct str s = { buf_data(&l->contents) + a[i].off, a[i].len };
		struct added to = { a[i].id, a[i].flags, !a[i].normalized };
		size_t at = buf_len(&normal);

		if (a[i].single_word || s.n > CONTENT_MAX) {
			snprintf(l->why, sizeof(l->why), "added_tokens: %.*s: %s is not known",
				 (int)(s.n < 80 ? s.n : 80), s.p, a[i].single_word ? "single_word" : "such a long one");
			break;
		}
		r = buf_put(&l->part[IMG_ADDED], &to, sizeof(to));
		if (!s.n || r)
			continue;
		if (!a[i].normalized) {
			c[raw++] = (struct content){ s, (uint32_t)i + 1 };
			continue;
		}
		r = put_normal(l, s, &normal);
		d[other++] = (struct content){ { NULL, buf_len(&normal) - at }, (uint32_t)i + 1 };
	}
	for (size_t i = 0, at = 0; i < other; at += d[i++].text.n)
		d[i].text.p = buf_data(&normal) + at;
	if (!r && !*l->why)
		r = put_trie(l, c, raw);
	if (!r && !*l->why)
		r = put_trie(l, d, other);
	buf_free(&normal);
	free(c);
	return r;
}
