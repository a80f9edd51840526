/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/rand.h"
#include "model/vocab_int.h"

#define ALIGN 64

_Static_assert(sizeof(struct image_rules) == 16 && offsetof(struct image, source) == 32, "a file's head");

/* Two sums that read the bytes once, four lanes each; fast, not secret: who may write a model's files or the cache may
 * choose what is read from them anyway. */
void image_sum(const void *mem, size_t n, uint64_t ret[2])
{
	const uint64_t k = UINT64_C(0x9e3779b185ebca87), m = UINT64_C(0xc2b2ae3d27d4eb4f);
	const char *p = mem;
	uint64_t a[4] = { k, m, ~k, ~m }, b[4] = { 1, 2, 3, 4 }, w[4];
	size_t left = n;

	for (;; p += sizeof(w), left -= sizeof(w)) {
		if (left < sizeof(w)) {
			memset(w, 0, sizeof(w));
			if (left)
				memcpy(w, p, left);
		} else {
			memcpy(w, p, sizeof(w));
		}
		for (int i = 0; i < 4; i++) {
			a[i] = (a[i] ^ w[i]) * k;
			a[i] ^= a[i] >> 31;
			b[i] = (b[i] << 29 | b[i] >> 35) + w[i] * m;
		}
		if (left <= sizeof(w))
			break;
	}
	ret[0] = ret[1] = n;
	for (int i = 0; i < 4; i++) {
		ret[0] = mix64(ret[0] ^ a[i]) + b[i];
		ret[1] = mix64(ret[1] ^ b[i] * k) + a[i];
	}
	ret[0] = mix64(ret[0]);
	ret[1] = mix64(ret[1] + ret[0]);
}

static uint64_t sum_of(const struct image *g)
{
	uint64_t sum[2];

	image_sum(g->source, g->bytes - offsetof(struct image, source), sum);
	return sum[0];
}

struct image *image_make(const struct image_rules *rules, uint32_t ids, const uint64_t source[2],
			 const struct str part[IMG_PARTS])
{
	size_t bytes = sizeof(struct image);
	struct image *g;

	for (int i = 0; i < IMG_PARTS; i++)
		bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN + part[i].n;
	g = aligned_alloc(ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN);
	if (!g)
		return NULL;
	memset(g, 0, (bytes + ALIGN - 1) / ALIGN * ALIGN);
	memcpy(g->magic, IMAGE_MAGIC, sizeof(g->magic));
	g->schema = IMAGE_SCHEMA;
	g->ids = ids;
	g->bytes = bytes;
	g->source[0] = source[0];
	g->source[1] = source[1];
	g->rules = *rules;
	bytes = sizeof(struct image);
	for (int i = 0; i < IMG_PARTS; i++) {
		bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
		g->part[i].off = bytes;
		g->part[i].bytes = part[i].n;
		if (part[i].n)
			memcpy((char *)g + bytes, part[i].p, part[i].n);
		bytes += part[i].n;
	}
	g->sum = sum_of(g);
	return g;
}

/* --- is it whole? --- */

static const void *at(const struct image *g, enum image_part p)
{
	return (const char *)g + g->part[p].off;
}

/* Elements of a part, SIZE_MAX if its bytes are not a multiple. */
static size_t count(const struct image *g, enum image_part p, size_t each)
{
	return g->part[p].bytes % each ? SIZE_MAX : g->part[p].bytes / each;
}

static bool offsets_ok(const struct image *g)
{
	const uint32_t *off = at(g, IMG_OFF);

	if (g->ids > IDS_MAX || count(g, IMG_OFF, sizeof(*off)) != (size_t)g->ids + 1 ||
	    g->part[IMG_TEXT].bytes >= HOLE)
		return false;
	for (uint32_t i = 0; i < g->ids; i++)
		if ((off[i] & ~HOLE) > (off[i + 1] & ~HOLE))
			return false;
	return off[g->ids] <= g->part[IMG_TEXT].bytes;
}

static bool ids_ok(const struct image *g, enum image_part p)
{
	const uint32_t *id = at(g, p);
	size_t n = count(g, p, sizeof(*id));

	for (size_t i = 0; n != SIZE_MAX && i < n; i++)
		if (id[i] >= g->ids)
			return false;
	return n != SIZE_MAX;
}

/* A table of 2^k slots of <words> words each, the last one an id; one is empty, so that every search ends. */
static bool slots_ok(const struct image *g, enum image_part p, unsigned words)
{
	const uint32_t *w = at(g, p);
	size_t n = count(g, p, words * sizeof(*w));
	bool empty = false;

	if (n == 0 || n == SIZE_MAX || n & (n - 1) || n > UINT32_C(1) << 30)
		return false;
	for (size_t i = 0; i < n; i++, w += words) {
		empty |= w[words - 1] == NO_ID;
		for (unsigned k = words == 4 ? 0 : words - 1; k < words; k++)
			if (w[words - 1] != NO_ID && k != 2 && w[k] >= g->ids)
				return false;
	}
	return empty;
}

/* The first 0x80, and the bytes of UTF-8's longer characters. */
static bool byte_needed(unsigned b)
{
	return b < 0xc0 || (b >= 0xc2 && b <= 0xf4);
}

static bool bytes_ok(const struct image *g)
{
	const uint32_t *id = at(g, IMG_BYTES);

	if (count(g, IMG_BYTES, sizeof(*id)) != 256)
		return false;
	for (unsigned i = 0; i < 256; i++)
		if (id[i] >= g->ids && (id[i] != NO_ID || byte_needed(i)))
			return false;
	return true;
}

static bool tries_ok(const struct image *g)
{
	const struct added *added = at(g, IMG_ADDED);
	const struct trie_node *node = at(g, IMG_NODES);
	const struct trie_edge *edge = at(g, IMG_EDGES);
	const uint32_t *root = at(g, IMG_ROOT);
	size_t nadded = count(g, IMG_ADDED, sizeof(*added)), nodes = count(g, IMG_NODES, sizeof(*node));
	size_t edges = count(g, IMG_EDGES, sizeof(*edge));

	if (nadded > IDS_MAX || nodes > UINT32_MAX || edges > UINT32_MAX || count(g, IMG_ROOT, sizeof(*root)) != 512)
		return false;
	for (size_t i = 0; i < nadded; i++)
		if (added[i].id >= g->ids)
			return false;
	for (size_t i = 0; i < 512; i++)
		if (root[i] && root[i] >= nodes)
			return false;
	for (size_t i = 0; i < nodes; i++)
		if (node[i].added > nadded || node[i].edges > edges || node[i].n > edges - node[i].edges)
			return false;
	for (size_t i = 0; i < edges; i++)
		if (edge[i].node >= nodes)
			return false;
	return true;
}

static bool rules_ok(const struct image_rules *r)
{
	return r->scheme < SCHEME_N && r->normal < NORMAL_N && r->prepend < PREPEND_N && r->digits <= 3;
}

static const char *parts_check(const struct image *g)
{
	if (!offsets_ok(g))
		return "its tokens are damaged";
	if (!ids_ok(g, IMG_BEFORE) || !ids_ok(g, IMG_AFTER))
		return "its special tokens are damaged";
	if (g->part[IMG_WHY].bytes)
		return NULL;
	if (!rules_ok(&g->rules) || !bytes_ok(g) || (g->rules.characters && !slots_ok(g, IMG_CHARS, 2)))
		return "its symbols are damaged";
	if (!slots_ok(g, IMG_MERGES, 4) || !slots_ok(g, IMG_WORDS, 2))
		return "its merges are damaged";
	return tries_ok(g) ? NULL : "its added tokens are damaged";
}

const char *image_check(const struct image *g, size_t bytes)
{
	if (bytes < sizeof(*g) || memcmp(g->magic, IMAGE_MAGIC, sizeof(g->magic)) != 0)
		return "it is no compiled vocabulary";
	if (g->schema != IMAGE_SCHEMA)
		return "it was compiled by another version";
	if (g->bytes != bytes)
		return "it is not as long as it says";
	if (g->sum != sum_of(g))
		return "its checksum is wrong";
	for (int i = 0; i < IMG_PARTS; i++)
		if (g->part[i].off % ALIGN || g->part[i].off > bytes || g->part[i].bytes > bytes - g->part[i].off)
			return "its head is damaged";
	return parts_check(g);
}

void image_release(const struct image *g, bool mapped)
{
	if (g && mapped)
		munmap((void *)g, g->bytes);
	else
		free((void *)g);
}

static uint32_t mask_of(const struct image *g, enum image_part p, size_t each)
{
	return (uint32_t)(g->part[p].bytes / each) - 1;
}

struct vocab *vocab_adopt(const struct image *g, bool mapped)
{
	struct vocab *v = calloc(1, sizeof(*v));

	if (!v) {
		image_release(g, mapped);
		errno = ENOMEM;
		return NULL;
	}
	v->img = g;
	v->mapped = mapped;
	v->off = at(g, IMG_OFF);
	v->text = at(g, IMG_TEXT);
	v->bytes = at(g, IMG_BYTES);
	v->chars = at(g, IMG_CHARS);
	v->merges = at(g, IMG_MERGES);
	v->words = at(g, IMG_WORDS);
	v->added = at(g, IMG_ADDED);
	v->root = at(g, IMG_ROOT);
	v->nodes = at(g, IMG_NODES);
	v->edges = at(g, IMG_EDGES);
	v->chars_mask = mask_of(g, IMG_CHARS, sizeof(*v->chars));
	v->merges_mask = mask_of(g, IMG_MERGES, sizeof(*v->merges));
	v->words_mask = mask_of(g, IMG_WORDS, sizeof(*v->words));
	v->nadded = (uint32_t)(g->part[IMG_ADDED].bytes / sizeof(*v->added));
	v->nnodes = (uint32_t)(g->part[IMG_NODES].bytes / sizeof(*v->nodes));
	atomic_init(&v->refs, 1);
	return v;
}
