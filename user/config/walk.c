/* SPDX-License-Identifier: Apache-2.0
 *
 * From the tree to the structs. A mapping is walked key by key: "limits" and then "queue" find the row
 * "limits.queue", whose type says how to read the value and whose offset says where it goes. An error is reported and
 * the walk goes on, so that one run shows them all.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config_int.h"

size_t walk_push(struct walk *w, const char *fmt, ...)
{
	size_t len = w->path.len;
	va_list ap;

	va_start(ap, fmt);
	if (buf_vprintf(&w->path, fmt, ap) || !buf_room(&w->path, 1))
		w->r.nomem = true;
	else
		w->path.mem[w->path.len] = '\0';
	va_end(ap);
	return len;
}

static void path_pop(struct walk *w, size_t len)
{
	w->path.len = len;
	if (w->path.mem)
		w->path.mem[len] = '\0';
}

static const char *path_text(const struct walk *w)
{
	return w->path.len ? buf_data(&w->path) : NULL;
}

void walk_complain(struct walk *w, const struct node *at, const char *fmt, ...)
{
	struct buf b = { 0 };
	va_list ap;

	va_start(ap, fmt);
	if (buf_vprintf(&b, fmt, ap) || buf_put(&b, "", 1))
		w->r.nomem = true;
	else
		report_at(&w->r, at->line, at->col, path_text(w), "%s", buf_data(&b));
	va_end(ap);
	buf_free(&b);
}

static void remember(struct walk *w, const struct node *at)
{
	struct config_full *f = w->f;
	char *key;

	if (!f || !path_text(w))
		return;
	if (f->npos == f->cap_pos) {
		unsigned cap = f->cap_pos ? 2 * f->cap_pos : 64;
		struct config_pos *v = realloc(f->pos, cap * sizeof(*v));

		if (!v) {
			w->r.nomem = true;
			return;
		}
		f->pos = v;
		f->cap_pos = cap;
	}
	key = str_dup(str_of(path_text(w)));
	if (!key)
		w->r.nomem = true;
	else
		f->pos[f->npos++] = (struct config_pos){ key, at->line, at->col };
}

static void set_scalar(struct walk *w, const struct option *o, void *base, const struct node *n)
{
	struct buf why = { 0 }, abs = { 0 };
	const char *text = n->text;
	int r;

	if (n->type != NODE_SCALAR || n->null) {
		value_put_type(o, &why);
		walk_complain(w, n, "is %s, expected: %.*s", node_kind(n), (int)buf_len(&why), buf_data(&why));
		buf_free(&why);
		return;
	}
	if (o->type == OPT_PATH && w->dir.n && *text && *text != '/') {
		if (buf_printf(&abs, "%.*s/%s", (int)w->dir.n, w->dir.p, text) || buf_put(&abs, "", 1))
			w->r.nomem = true;
		else
			text = buf_data(&abs);
	}
	r = value_set(o, base, text, &why);
	if (r == -ENOMEM)
		w->r.nomem = true;
	else if (r)
		walk_complain(w, n, "%.*s", (int)buf_len(&why), buf_data(&why));
	buf_free(&abs);
	buf_free(&why);
}

bool pod_twice(const struct config_pod *pods, unsigned n)
{
	for (unsigned i = 0; i + 1 < n; i++)
		if (pods[i].address && pods[n - 1].address && strcmp(pods[i].address, pods[n - 1].address) == 0)
			return true;
	return false;
}

static bool has_key(const struct node *n, const char *key)
{
	for (const struct node *c = n->child; c; c = c->next)
		if (strcmp(c->key, key) == 0)
			return true;
	return false;
}

static void set_element(struct walk *w, const struct option *o, void *base, const struct node *n)
{
	void *el = list_grow(o, base);
	struct buf why = { 0 };
	unsigned count;
	int r;

	if (!el) {
		w->r.nomem = true;
		return;
	}
	if (n->type == NODE_MAP) {
		walk_map(w, n, o->list, el, "");
	} else if (n->type == NODE_SCALAR && !n->null && o->list == &section_pod) {
		r = pod_from_text(el, n->text, &why);
		if (r == -ENOMEM)
			w->r.nomem = true;
		else if (r)
			walk_complain(w, n, "%.*s", (int)buf_len(&why), buf_data(&why));
		if (r)
			goto out;
	} else {
		walk_complain(w, n, "is %s, expected a mapping%s", node_kind(n),
			      o->list == &section_pod ? " or HOST:PORT" : "");
		goto out;
	}
	if (o->list == &section_pod) {
		struct config_pod *pods = list_at(o, base, &count);

		if (n->type == NODE_MAP && !has_key(n, "address"))
			walk_complain(w, n, "has no address: add address: HOST:PORT");
		else if (pod_twice(pods, count))
			walk_complain(w, n, "%s is listed twice: keep one", pods[count - 1].address);
	}
out:
	buf_free(&why);
}

void walk_list(struct walk *w, const struct option *o, void *base, const struct node *n)
{
	unsigned i = 0;

	if (n->type != NODE_LIST) {
		if (!n->null)
			walk_complain(w, n, "is %s, expected a list: write it as [ … ] or as lines that begin with -",
				      node_kind(n));
		return;
	}
	if (n->n > CONFIG_LIST_MAX) {
		walk_complain(w, n, "has %u elements, allowed: %u", n->n, CONFIG_LIST_MAX);
		return;
	}
	for (const struct node *c = n->child; c; c = c->next) {
		size_t len = walk_push(w, "[%u]", i++);

		remember(w, c);
		if (o->type == OPT_LIST)
			set_element(w, o, base, c);
		else
			set_scalar(w, o, base, c);
		path_pop(w, len);
	}
}

static void unknown_key(struct walk *w, const struct section *s, const char *prefix, const struct node *n)
{
	struct buf b = { 0 };

	suggest_option(&b, s, str_of(prefix), n->key);
	report_at(&w->r, n->key_line, n->key_col, path_text(w), "unknown key%.*s", (int)buf_len(&b), buf_data(&b));
	buf_free(&b);
}

static void walk_key(struct walk *w, const struct section *s, void *base, const char *prefix, const struct node *n)
{
	size_t len = walk_push(w, "%s%.100s", w->path.len ? "." : "", n->key);
	const struct option *o = NULL;
	/* <below> is the prefix of the keys that this one may hold. */
	char key[128], below[130];
	int k = snprintf(key, sizeof(key), "%s%s", prefix, n->key);
	bool fits = k > 0 && (size_t)k < sizeof(key) && !strchr(n->key, '.');

	if (fits)
		o = option_find(s, str_of(key));
	remember(w, n);
	if (o && o->type == OPT_LATER) {
		report_at(&w->r, n->key_line, n->key_col, path_text(w), "not supported yet by this version");
	} else if (o && (o->type == OPT_LIST || o->type == OPT_STRINGS)) {
		walk_list(w, o, base, n);
	} else if (o) {
		set_scalar(w, o, base, n);
	} else if (fits && option_parent(s, str_of(key))) {
		if (n->type == NODE_MAP) {
			snprintf(below, sizeof(below), "%s.", key);
			walk_map(w, n, s, base, below);
		} else if (!n->null) {
			walk_complain(w, n, "is %s, expected a mapping", node_kind(n));
		}
	} else {
		unknown_key(w, s, prefix, n);
	}
	path_pop(w, len);
}

/* A pool's pods come from one source. */
static void choose_discovery(struct walk *w, const struct node *n, struct config_pool *p)
{
	static const char *const sources[] = { "static", "file", "dns" };
	const struct node *d = n->child;
	unsigned given = 0;

	while (d && strcmp(d->key, "discovery") != 0)
		d = d->next;
	for (const struct node *c = d ? d->child : NULL; c; c = c->next) {
		for (unsigned i = 0; c->key && !c->null && i < 3; i++) {
			if (strcmp(c->key, sources[i]) == 0) {
				p->discovery = (enum config_discovery)i;
				given++;
			}
		}
	}
	if (given > 1) {
		size_t len = walk_push(w, ".discovery");

		walk_complain(w, d, "names more than one source, allowed: one of static, file, dns");
		path_pop(w, len);
	} else if (given && p->discovery == DISC_DNS && !p->dns_name) {
		size_t len = walk_push(w, ".discovery.dns");

		walk_complain(w, d, "has no name: add name: HOST");
		path_pop(w, len);
	}
}

void walk_map(struct walk *w, const struct node *n, const struct section *s, void *base, const char *prefix)
{
	for (const struct node *c = n->child; c; c = c->next)
		walk_key(w, s, base, prefix, c);
	if (s == &section_pool && !*prefix)
		choose_discovery(w, n, base);
}
