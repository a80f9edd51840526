/* SPDX-License-Identifier: Apache-2.0
 *
 * libyaml's events become a small tree that knows its lines. Bounded in bytes, nodes, depth and keys of a mapping;
 * anchors, aliases and tags are refused, so a file cannot say more than its bytes do.
 */
#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

#include "config/config_int.h"

struct reader {
	yaml_parser_t p;
	struct report *r;
	unsigned nodes;
	bool failed;
};

void report_at(struct report *r, unsigned line, unsigned col, const char *key, const char *fmt, ...)
{
	va_list ap;

	if (++r->n > CONFIG_ERRORS_MAX) {
		if (r->n == CONFIG_ERRORS_MAX + 1)
			buf_puts(r->err, "more errors follow, not shown\n");
		return;
	}
	if (r->file)
		buf_printf(r->err, "%s:", r->file);
	if (r->file && line)
		buf_printf(r->err, "%u:%u:", line, col);
	if (r->file)
		buf_puts(r->err, " ");
	if (key)
		buf_printf(r->err, "%s: ", key);
	va_start(ap, fmt);
	if (buf_vprintf(r->err, fmt, ap) || buf_puts(r->err, "\n"))
		r->nomem = true;
	va_end(ap);
}

void node_free(struct node *n)
{
	while (n) {
		struct node *next = n->next;

		node_free(n->child);
		free(n->text);
		free(n->key);
		free(n);
		n = next;
	}
}

const char *node_kind(const struct node *n)
{
	static const char *const kinds[] = { "a single value", "a list", "a mapping" };

	return n->null ? "empty" : kinds[n->type];
}

static void fail(struct reader *rd, yaml_mark_t at, const char *what)
{
	if (!rd->failed)
		report_at(rd->r, (unsigned)at.line + 1, (unsigned)at.column + 1, NULL, "%s", what);
	rd->failed = true;
}

static bool next_event(struct reader *rd, yaml_event_t *ev)
{
	struct buf why = { 0 };

	if (yaml_parser_parse(&rd->p, ev))
		return true;
	if (rd->p.error == YAML_MEMORY_ERROR) {
		rd->r->nomem = true;
	} else {
		buf_printf(&why, "not valid YAML: %s", rd->p.problem ? rd->p.problem : "cannot be read");
		if (rd->p.context)
			buf_printf(&why, " (%s)", rd->p.context);
		if (buf_put(&why, "", 1) == 0)
			fail(rd, rd->p.problem_mark, buf_data(&why));
	}
	rd->failed = true;
	buf_free(&why);
	return false;
}

/* What the file may not have at all. */
static bool refused(struct reader *rd, const yaml_event_t *ev)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;

	switch (ev->type) {
	case YAML_ALIAS_EVENT:
		fail(rd, ev->start_mark, "aliases (*name) are not allowed: write the value out");
		return true;
	case YAML_SCALAR_EVENT:
		anchor = ev->data.scalar.anchor;
		tag = ev->data.scalar.tag;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = ev->data.sequence_start.anchor;
		tag = ev->data.sequence_start.tag;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = ev->data.mapping_start.anchor;
		tag = ev->data.mapping_start.tag;
		break;
	default:
		return false;
	}
	if (anchor)
		fail(rd, ev->start_mark, "anchors (&name) are not allowed: write the value out");
	else if (tag)
		fail(rd, ev->start_mark, "tags (!name) are not allowed");
	return anchor || tag;
}

static char *scalar_text(struct reader *rd, const yaml_event_t *ev)
{
	struct str s = { (const char *)ev->data.scalar.value, ev->data.scalar.length };
	char *text;

	for (size_t i = 0; i < s.n; i++) {
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f) {
			fail(rd, ev->start_mark, "a value holds a control character or a line break");
			return NULL;
		}
	}
	text = str_dup(s);
	if (!text)
		rd->r->nomem = rd->failed = true;
	return text;
}

static struct node *node_of(struct reader *rd, const yaml_event_t *ev)
{
	struct node *n;

	if (++rd->nodes > CONFIG_NODES_MAX) {
		fail(rd, ev->start_mark, "too many values in one file, allowed: 65536");
		return NULL;
	}
	n = calloc(1, sizeof(*n));
	if (!n) {
		rd->r->nomem = rd->failed = true;
		return NULL;
	}
	n->line = (unsigned)ev->start_mark.line + 1;
	n->col = (unsigned)ev->start_mark.column + 1;
	return n;
}

static struct node *node_read(struct reader *rd, const yaml_event_t *ev, unsigned depth);

/* The first of <n>'s children that has <key>. */
static const struct node *child_named(const struct node *n, const char *key)
{
	for (const struct node *c = n->child; c; c = c->next)
		if (strcmp(c->key, key) == 0)
			return c;
	return NULL;
}

/* Read a key and give its text; the value is what follows. */
static char *read_key(struct reader *rd, const struct node *map, const yaml_event_t *ev)
{
	if (map->n >= CONFIG_KEYS_MAX) {
		fail(rd, ev->start_mark, "too many keys in one mapping, allowed: 256");
		return NULL;
	}
	if (refused(rd, ev))
		return NULL;
	if (ev->type != YAML_SCALAR_EVENT) {
		fail(rd, ev->start_mark, "a key must be a word, not a list or a mapping");
		return NULL;
	}
	return scalar_text(rd, ev);
}

/* Children of <n> up to its end event. */
static bool read_children(struct reader *rd, struct node *n, unsigned depth)
{
	yaml_event_type_t end = n->type == NODE_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
	struct node **tail = &n->child;

	for (;;) {
		const struct node *twin;
		struct node *c;
		yaml_event_t ev;
		yaml_mark_t at;
		char *key = NULL;

		if (!next_event(rd, &ev))
			return false;
		if (ev.type == end) {
			yaml_event_delete(&ev);
			return true;
		}
		at = ev.start_mark;
		if (n->type == NODE_MAP) {
			key = read_key(rd, n, &ev);
			yaml_event_delete(&ev);
			if (!key)
				return false;
			if (!next_event(rd, &ev)) {
				free(key);
				return false;
			}
		}
		c = node_read(rd, &ev, depth + 1);
		yaml_event_delete(&ev);
		if (!c) {
			free(key);
			return false;
		}
		c->key = key;
		c->key_line = (unsigned)at.line + 1;
		c->key_col = (unsigned)at.column + 1;
		twin = key ? child_named(n, key) : NULL;
		if (twin) {
			report_at(rd->r, c->key_line, c->key_col, key, "given twice, first at line %u: keep one",
				  twin->key_line);
			node_free(c);
			continue;
		}
		*tail = c;
		tail = &c->next;
		n->n++;
	}
}

static bool is_null(const yaml_event_t *ev)
{
	const char *t = (const char *)ev->data.scalar.value;

	return ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (!*t || !strcmp(t, "~") || !strcmp(t, "null") || !strcmp(t, "Null") || !strcmp(t, "NULL"));
}

static struct node *node_read(struct reader *rd, const yaml_event_t *ev, unsigned depth)
{
	struct node *n;

	if (refused(rd, ev))
		return NULL;
	if (depth > CONFIG_DEPTH_MAX) {
		fail(rd, ev->start_mark, "nested too deeply, allowed: 16 levels");
		return NULL;
	}
	n = node_of(rd, ev);
	if (!n)
		return NULL;
	if (ev->type == YAML_SCALAR_EVENT) {
		n->type = NODE_SCALAR;
		n->text = scalar_text(rd, ev);
		n->null = n->text && is_null(ev);
	} else {
		n->type = ev->type == YAML_MAPPING_START_EVENT ? NODE_MAP : NODE_LIST;
		read_children(rd, n, depth);
	}
	if (rd->failed) {
		node_free(n);
		return NULL;
	}
	return n;
}

struct node *node_parse(struct str text, struct report *r)
{
	struct reader rd = { .r = r };
	struct node *root = NULL;
	yaml_event_t ev;

	if (text.n > CONFIG_FILE_MAX) {
		report_at(r, 0, 0, NULL, "larger than 1 MiB: not read");
		return NULL;
	}
	if (!yaml_parser_initialize(&rd.p)) {
		r->nomem = true;
		return NULL;
	}
	yaml_parser_set_encoding(&rd.p, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&rd.p, (const unsigned char *)(text.p ? text.p : ""), text.n);
	while (!rd.failed && next_event(&rd, &ev)) {
		bool end = ev.type == YAML_STREAM_END_EVENT;

		if (ev.type == YAML_DOCUMENT_START_EVENT && root)
			fail(&rd, ev.start_mark, "a second document (---) begins: only one is allowed");
		else if (ev.type == YAML_ALIAS_EVENT || ev.type == YAML_SCALAR_EVENT ||
			 ev.type == YAML_MAPPING_START_EVENT || ev.type == YAML_SEQUENCE_START_EVENT) {
			node_free(root); /* there is none: a second document was refused */
			root = node_read(&rd, &ev, 1);
		}
		yaml_event_delete(&ev);
		if (end)
			break;
	}
	yaml_parser_delete(&rd.p);
	if (rd.failed) {
		node_free(root);
		return NULL;
	}
	return root;
}
