/* SPDX-License-Identifier: Apache-2.0
 * Two configurations: what differs, and taking over what a running gateway can take over. Which that is the table
 * says: an option without <restart> is a number, a truth, or a word that the control thread alone reads; of lists there
 * is one, the static pods, which the caller looks after.
 */
#include <errno.h>
#include <stdio.h>

#include "config/config_int.h"

struct diff {
	void (*changed)(void *arg, const char *key, bool restart);
	void *arg;
};

static bool same_strings(const struct option *o, const void *a, const void *b)
{
	unsigned n, m;
	char **v = list_at(o, a, &n), **u = list_at(o, b, &m);

	if (n != m)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (strcmp(v[i], u[i]) != 0)
			return false;
	return true;
}

static bool same_scalar(const struct option *o, const void *a, const void *b)
{
	struct buf x = { 0 }, y = { 0 };
	bool hasx = value_put(o, a, &x), hasy = value_put(o, b, &y);
	bool same = hasx == hasy && buf_len(&x) == buf_len(&y) &&
		    (!buf_len(&x) || memcmp(buf_data(&x), buf_data(&y), buf_len(&x)) == 0);

	buf_free(&x);
	buf_free(&y);
	return same;
}

static void diff_section(struct diff *d, const struct section *s, const void *a, const void *b, const char *prefix)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct option *o = &s->opts[i];
		const char *v, *u;
		char key[192];
		unsigned n, m;

		if (o->type == OPT_LATER)
			continue;
		snprintf(key, sizeof(key), "%s%s", prefix, o->key);
		if (o->type == OPT_STRINGS) {
			if (!same_strings(o, a, b))
				d->changed(d->arg, key, o->restart);
			continue;
		}
		if (o->type != OPT_LIST) {
			if (!same_scalar(o, a, b))
				d->changed(d->arg, key, o->restart);
			continue;
		}
		v = list_at(o, a, &n);
		u = list_at(o, b, &m);
		if (n != m)
			d->changed(d->arg, key, o->restart);
		for (unsigned j = 0; n == m && j < n; j++) {
			char sub[192];

			snprintf(sub, sizeof(sub), "%.150s[%u].", key, j);
			diff_section(d, o->list, v + j * o->list->size, u + j * o->list->size, sub);
		}
	}
}

void config_diff(const struct config *a, const struct config *b,
		 void (*changed)(void *arg, const char *key, bool restart), void *arg)
{
	struct diff d = { changed, arg };

	diff_section(&d, &section_root, a, b, "");
	if (a->npools != b->npools)
		return;
	for (unsigned i = 0; i < a->npools; i++) {
		char key[64];

		if (a->pools[i].discovery == b->pools[i].discovery)
			continue;
		snprintf(key, sizeof(key), "pools[%u].discovery", i);
		changed(arg, key, true);
	}
}

/* --- taking over --- */

static void swap(void *a, void *b)
{
	char *t = *(char **)a;

	*(char **)a = *(char **)b;
	*(char **)b = t;
}

/* Workers read numbers while they are written: each is a word, and either value is a right one. */
static void take_scalar(const struct option *o, void *to, void *from)
{
	void *dst = (char *)to + o->off, *src = (char *)from + o->off;

	switch (o->type) {
	case OPT_BOOL:
		__atomic_store_n((bool *)dst, *(bool *)src, __ATOMIC_RELAXED);
		break;
	case OPT_COUNT:
	case OPT_DURATION:
	case OPT_SIZE:
		__atomic_store_n((uint64_t *)dst, *(uint64_t *)src, __ATOMIC_RELAXED);
		break;
	case OPT_SHARE:
		__atomic_store((double *)dst, (double *)src, __ATOMIC_RELAXED);
		break;
	case OPT_ENUM:
		swap(dst, src);
		break;
	default:
		break;
	}
}

static void take_section(const struct section *s, void *to, void *from)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct option *o = &s->opts[i];
		char *v, *u;
		unsigned n, m;

		if (o->list == &section_pool) {
			v = list_at(o, to, &n);
			u = list_at(o, from, &m);
			for (unsigned j = 0; j < n && j < m; j++)
				take_section(o->list, v + j * o->list->size, u + j * o->list->size);
		} else if (!o->restart) {
			take_scalar(o, to, from);
		}
	}
}

void config_take(struct config *to, struct config *from)
{
	take_section(&section_root, to, from);
}
