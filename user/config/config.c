/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/config_int.h"

void *list_at(const struct option *o, const void *base, unsigned *ret_n)
{
	*ret_n = *(const unsigned *)((const char *)base + o->off_n);
	return *(void *const *)((const char *)base + o->off);
}

int section_init(const struct section *s, void *base)
{
	struct buf why = { 0 };
	int r = 0;

	for (unsigned i = 0; i < s->n && r == 0; i++)
		if (s->opts[i].def)
			r = value_set(&s->opts[i], base, s->opts[i].def, &why);
	buf_free(&why);
	return r;
}

void section_free(const struct section *s, void *base)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct option *o = &s->opts[i];
		char *v, **words;
		unsigned n;

		switch (o->type) {
		case OPT_STRING:
		case OPT_PATH:
		case OPT_ENUM:
			free(*(char **)((char *)base + o->off));
			break;
		case OPT_STRINGS:
			words = list_at(o, base, &n);
			for (unsigned j = 0; j < n; j++)
				free(words[j]);
			free(words);
			break;
		case OPT_LIST:
			v = list_at(o, base, &n);
			for (unsigned j = 0; j < n; j++)
				section_free(o->list, v + j * o->list->size);
			free(v);
			break;
		default:
			break;
		}
	}
}

void *list_grow(const struct option *o, void *base)
{
	unsigned *n = (unsigned *)((char *)base + o->off_n);
	void **list = (void **)((char *)base + o->off);
	char *v = realloc(*list, (*n + 1) * o->list->size);

	if (!v)
		return NULL;
	*list = v;
	v += *n * o->list->size;
	memset(v, 0, o->list->size);
	(*n)++; /* section_free can take half an element */
	return section_init(o->list, v) ? NULL : v;
}

static int add_default_listener(struct config_full *f)
{
	f->default_listener = true;
	return list_grow(option_find(&section_root, STR("listeners")), &f->pub) ? 0 : -ENOMEM;
}

static struct config_full *full_new(void)
{
	struct config_full *f = calloc(1, sizeof(*f));

	if (f && section_init(&section_root, &f->pub)) {
		config_free(&f->pub);
		f = NULL;
	}
	return f;
}

void config_free(struct config *c)
{
	struct config_full *f = (struct config_full *)c;

	if (!c)
		return;
	section_free(&section_root, c);
	for (unsigned i = 0; i < f->npos; i++)
		free(f->pos[i].key);
	free(f->pos);
	free(c->file);
	free(f);
}

struct config *config_defaults(void)
{
	struct config_full *f = full_new();

	if (f && add_default_listener(f)) {
		config_free(&f->pub);
		f = NULL;
	}
	if (!f)
		errno = ENOMEM;
	return f ? &f->pub : NULL;
}

static struct str dir_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? (struct str){ name, (size_t)(slash - name) } : (struct str){ NULL, 0 };
}

struct config *config_parse(struct str text, const char *name, struct buf *err)
{
	struct walk w = { .r = { .err = err, .file = name }, .dir = dir_of(name) };
	struct node *root = NULL;
	int saved = EINVAL;

	w.f = full_new();
	if (!w.f)
		return NULL;
	w.f->pub.file = str_dup(str_of(name));
	root = node_parse(text, &w.r);
	if (root && root->type == NODE_MAP)
		walk_map(&w, root, &section_root, &w.f->pub, "");
	else if (root && !root->null)
		walk_complain(&w, root, "is %s, expected a mapping: pools: …", node_kind(root));
	if (w.f->pub.nlisteners == 0 && add_default_listener(w.f))
		w.r.nomem = true;
	node_free(root);
	buf_free(&w.path);
	if (w.r.nomem || !w.f->pub.file)
		saved = ENOMEM;
	else if (w.r.n == 0)
		return &w.f->pub;
	config_free(&w.f->pub);
	errno = saved;
	return NULL;
}

static int read_file(const char *file, struct buf *text, struct buf *err)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC), r = 0;
	ssize_t n = 1;

	if (fd < 0) {
		r = -errno;
		buf_printf(err, "%s: cannot be opened: %s\n", file, strerror(-r));
		return r;
	}
	while (n > 0 && buf_len(text) <= CONFIG_FILE_MAX) {
		char *p = buf_room(text, 16384);

		if (!p) {
			r = -ENOMEM;
			break;
		}
		n = read(fd, p, 16384);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0)
			r = -errno;
		else
			buf_commit(text, (size_t)n);
	}
	close(fd);
	if (r)
		buf_printf(err, "%s: cannot be read: %s\n", file, strerror(-r));
	return r;
}

struct config *config_load(const char *file, struct buf *err)
{
	struct config *c = NULL;
	struct buf text = { 0 };
	int r = read_file(file, &text, err);

	if (r == 0) {
		c = config_parse(buf_str(&text), file, err);
		r = c ? 0 : -errno;
	}
	buf_free(&text);
	errno = -r;
	return c;
}

int config_load_pods(const char *file, struct config_pod **ret, unsigned *ret_n, struct buf *err)
{
	const struct option *o = option_find(&section_pool, STR("discovery.static"));
	struct walk w = { .r = { .err = err, .file = file } };
	struct config_pool p = { 0 };
	const struct node *list;
	struct node *root;
	struct buf text = { 0 };
	int r = read_file(file, &text, err);

	if (r)
		goto out;
	root = node_parse(buf_str(&text), &w.r);
	list = root;
	if (root && root->type == NODE_MAP && root->n == 1 && strcmp(root->child->key, "pods") == 0)
		list = root->child;
	walk_push(&w, "pods");
	if (list)
		walk_list(&w, o, &p, list);
	node_free(root);
	buf_free(&w.path);
	r = w.r.nomem ? -ENOMEM : w.r.n ? -EINVAL : 0;
out:
	buf_free(&text);
	if (r) {
		config_pods_free(p.pods, p.npods);
		return r;
	}
	*ret = p.pods;
	*ret_n = p.npods;
	return 0;
}

void config_pods_free(struct config_pod *pods, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		section_free(&section_pod, &pods[i]);
	free(pods);
}
