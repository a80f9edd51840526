/* SPDX-License-Identifier: Apache-2.0
 *
 * What the table says, written out: the effective configuration, the defaults with their explanations, --help and the
 * man page's options.
 */
#include <errno.h>
#include <stdio.h>

#include "base/jw.h"
#include "config/config_int.h"

enum style { EFFECTIVE, EXPLAINED };

struct yaml_out {
	struct buf *b;
	enum style style;
	bool dash; /* the next line begins an element */
	int err;
};

static void put(struct yaml_out *y, const char *s)
{
	if (buf_puts(y->b, s))
		y->err = -ENOMEM;
}

static void spaces(struct yaml_out *y, unsigned n)
{
	while (n--)
		put(y, " ");
}

static void indent_line(struct yaml_out *y, unsigned n)
{
	spaces(y, y->dash ? n - 2 : n);
	put(y, y->dash ? "- " : "");
	y->dash = false;
}

/* Doc lines as comments, broken at 100 columns. */
static void put_doc(struct yaml_out *y, const struct option *o, unsigned indent)
{
	struct buf b = { 0 };
	unsigned col = 0;
	char *save = NULL;

	buf_printf(&b, "%s (", o->doc);
	value_put_type(o, &b);
	if (buf_puts(&b, o->restart ? "; restart)" : ")") || buf_put(&b, "", 1)) {
		y->err = -ENOMEM;
	} else {
		for (char *w = strtok_r(buf_data(&b), " ", &save); w; w = strtok_r(NULL, " ", &save)) {
			unsigned len = (unsigned)strlen(w);

			if (col == 0 || col + len + 1 > 100) {
				put(y, col ? "\n" : "");
				spaces(y, indent);
				put(y, "#");
				col = indent + 1;
			}
			put(y, " ");
			put(y, w);
			col += len + 1;
		}
		put(y, "\n");
	}
	buf_free(&b);
}

static bool is_text(const struct option *o)
{
	return o->type == OPT_STRING || o->type == OPT_PATH || o->type == OPT_STRINGS;
}

/* A JSON string is a YAML string. */
static void put_quoted(struct yaml_out *y, struct str s)
{
	struct jw w;

	jw_init(&w, y->b);
	jw_strn(&w, s);
	if (jw_err(&w))
		y->err = jw_err(&w);
}

static void put_strings(struct yaml_out *y, const struct option *o, const void *base)
{
	unsigned n;
	char **v = list_at(o, base, &n);

	put(y, " [");
	for (unsigned i = 0; i < n; i++) {
		put(y, i ? ", " : "");
		put_quoted(y, str_of(v[i]));
	}
	put(y, "]\n");
}

/* Parents of <o>'s key that <prev>'s key does not share, each on its line. Returns the indent of the last word. */
static unsigned put_parents(struct yaml_out *y, const struct option *prev, const struct option *o, unsigned indent,
			    const char *lead)
{
	const char *k = o->key, *dot;
	bool shared = prev != NULL;
	size_t at = 0;

	for (; (dot = strchr(k + at, '.')); at = (size_t)(dot - k) + 1) {
		size_t n = (size_t)(dot - k) + 1;

		shared = shared && strncmp(prev->key, k, n) == 0;
		if (!shared) {
			indent_line(y, indent);
			if (buf_printf(y->b, "%s%.*s:\n", lead, (int)(n - 1 - at), k + at))
				y->err = -ENOMEM;
		}
		indent += 2;
	}
	return indent;
}

static void put_section(struct yaml_out *y, const struct section *s, const void *base, unsigned indent);

static void put_elements(struct yaml_out *y, const struct option *o, const void *base, unsigned indent)
{
	unsigned n;
	const char *v = list_at(o, base, &n);

	put(y, n ? "\n" : " []\n");
	for (unsigned i = 0; i < n; i++) {
		/* Where its first line is a comment the dash stands alone. */
		y->dash = y->style == EFFECTIVE;
		if (!y->dash) {
			spaces(y, indent + 2);
			put(y, "-\n");
		}
		put_section(y, o->list, v + i * o->list->size, indent + 4);
	}
}

static void put_section(struct yaml_out *y, const struct section *s, const void *base, unsigned indent)
{
	const struct option *prev = NULL;

	for (unsigned i = 0; i < s->n; i++) {
		const struct option *o = &s->opts[i];
		struct buf text = { 0 };
		const char *name = strrchr(o->key, '.');
		bool list = o->type == OPT_LIST || o->type == OPT_STRINGS;
		bool hidden = o->type == OPT_LATER || (o->shown && !o->shown(base));
		bool has = list || value_put(o, base, &text);
		unsigned in;

		name = name ? name + 1 : o->key;
		if (o->type != OPT_LATER && (y->style == EXPLAINED || (has && !hidden))) {
			const char *lead = has && !hidden ? "" : "# ";

			in = put_parents(y, prev, o, indent, lead);
			prev = o;
			if (y->style == EXPLAINED)
				put_doc(y, o, in);
			indent_line(y, in);
			put(y, lead);
			put(y, name);
			put(y, ":");
			if (o->type == OPT_STRINGS)
				put_strings(y, o, base);
			else if (o->type == OPT_LIST)
				put_elements(y, o, base, in);
			else {
				put(y, has ? " " : "");
				if (has && is_text(o))
					put_quoted(y, text.mem ? buf_str(&text) : STR(""));
				else if (has && buf_put(y->b, buf_data(&text), buf_len(&text)))
					y->err = -ENOMEM;
				put(y, "\n");
			}
		}
		buf_free(&text);
	}
}

int config_write_yaml(const struct config *c, struct buf *out)
{
	struct yaml_out y = { .b = out, .style = EFFECTIVE };

	put_section(&y, &section_root, c, 0);
	return y.err;
}

int config_write_defaults(struct buf *out)
{
	struct yaml_out y = { .b = out, .style = EXPLAINED };
	struct config *c = config_defaults();
	struct buf err = { 0 };
	int r = c ? config_add_pod(c, "127.0.0.1:8000", &err) : -ENOMEM;

	if (r == 0) {
		put(&y, "# Every key of kvsteer.yaml with its default, and one pod as an example.\n");
		put_section(&y, &section_root, c, 0);
		r = y.err;
	}
	buf_free(&err);
	config_free(c);
	return r;
}

/* --- flat lists of options --- */

static int each_option(const struct section *s, const char *prefix, struct buf *out,
		       int (*each)(struct buf *out, const char *key, const struct option *o))
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct option *o = &s->opts[i];
		char key[128], below[132];
		int r;

		if (o->type == OPT_LATER)
			continue;
		snprintf(key, sizeof(key), "%s%s", prefix, o->key);
		r = each(out, key, o);
		if (r == 0 && o->list) {
			snprintf(below, sizeof(below), "%s[].", key);
			r = each_option(o->list, below, out, each);
		}
		if (r)
			return r;
	}
	return 0;
}

static int help_line(struct buf *out, const char *key, const struct option *o)
{
	buf_printf(out, "  %s: ", key);
	value_put_type(o, out);
	return buf_printf(out, "%s\n      %s\n", o->restart ? "; restart" : "", o->doc);
}

int config_write_help(struct buf *out)
{
	return each_option(&section_root, "", out, help_line);
}

/* What reStructuredText would take for markup. */
static int put_rst(struct buf *out, struct str s)
{
	int r = 0;

	for (size_t i = 0; i < s.n && r == 0; i++)
		r = strchr("*`|_\\", s.p[i]) ? buf_printf(out, "\\%c", s.p[i]) : buf_put(out, s.p + i, 1);
	return r;
}

static int rst_item(struct buf *out, const char *key, const struct option *o)
{
	struct buf type = { 0 };
	int r;

	value_put_type(o, &type);
	buf_printf(out, "``%s`` (", key);
	put_rst(out, buf_str(&type));
	buf_printf(out, "%s)\n    ", o->restart ? "; needs a restart" : "");
	put_rst(out, str_of(o->doc));
	r = buf_puts(out, "\n\n");
	buf_free(&type);
	return r;
}

int config_write_rst(struct buf *out)
{
	return each_option(&section_root, "", out, rst_item);
}
