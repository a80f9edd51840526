/* SPDX-License-Identifier: Apache-2.0
 *
 * What verbs share: asking the daemon, errors, tables.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/jw.h"
#include "cli/cli.h"
#include "ctl/ctl.h"

int cli_fail(const struct cli *c, enum cli_exit code, const char *fmt, ...)
{
	static const char *const names[] = { "ok", "failed", "usage", "unreachable", "not_found", "raised", "refused" };
	struct buf msg = { 0 }, out = { 0 };
	struct jw w;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&msg, fmt, ap);
	va_end(ap);
	/* One line, whatever a name or the daemon held. */
	for (size_t i = 0; i < buf_len(&msg); i++)
		if ((unsigned char)buf_data(&msg)[i] < ' ')
			buf_data(&msg)[i] = ' ';
	buf_put(&msg, "", 1);
	if (c->json) {
		jw_init(&w, &out);
		jw_obj(&w);
		jw_kstr(&w, "code", names[code]);
		jw_kstr(&w, "error", msg.mem);
		jw_end_obj(&w);
		buf_put(&out, "", 1);
	}
	fflush(stdout);
	fprintf(stderr, "%s%s\n", c->json ? "" : "kvsteer: ", c->json ? out.mem : msg.mem);
	buf_free(&msg);
	buf_free(&out);
	return (int)code;
}

int cli_unreachable(const struct cli *c, int r)
{
	switch (r) {
	case -ENOENT:
	case -ECONNREFUSED:
		return cli_fail(c, CLI_UNREACHABLE,
				"no daemon listens at %s: is kvsteerd running? (--control names another)", c->control);
	case -EACCES:
	case -EPERM:
		return cli_fail(c, CLI_UNREACHABLE, "%s may not be opened: run as root or as a member of its group",
				c->control);
	case -ETIMEDOUT:
		return cli_fail(c, CLI_UNREACHABLE, "the daemon at %s has not answered for 10 s", c->control);
	case -ECONNRESET:
	case -EPIPE:
		return cli_fail(c, CLI_UNREACHABLE, "the daemon at %s hung up", c->control);
	case -EBADMSG:
		return cli_fail(c, CLI_UNREACHABLE, "who listens at %s is no kvsteerd", c->control);
	case -E2BIG:
		return cli_fail(c, CLI_USAGE, "too long for a request, which has 1 MiB at most");
	default:
		return cli_fail(c, CLI_UNREACHABLE, "%s: %s", c->control, strerror(-r));
	}
}

json_t *cli_data(const struct cli *c, json_t *answer, int *ret)
{
	const char *code, *why;

	if (json_is_true(json_object_get(answer, "ok"))) {
		*ret = CLI_OK;
		return json_object_get(answer, "data");
	}
	code = json_string_value(json_object_get(answer, "code"));
	why = json_string_value(json_object_get(answer, "error"));
	*ret = code && strcmp(code, "not_found") == 0 ? CLI_NOT_FOUND
	       : code && strcmp(code, "usage") == 0   ? CLI_USAGE
						      : CLI_FAILED;
	cli_fail(c, (enum cli_exit) * ret, "%s", why ? why : "the daemon refused and gave no reason");
	return NULL;
}

int cli_take(const struct cli *c, int r, json_t *answer, json_t **ret)
{
	json_t *data;

	if (r)
		return cli_unreachable(c, r);
	data = cli_data(c, answer, &r);
	if (r == CLI_OK)
		*ret = json_incref(data);
	json_decref(answer);
	return r;
}

int cli_call(const struct cli *c, const char *cmd, json_t *args, json_t **ret)
{
	json_t *answer = NULL;
	int r = ctl_call(c->control, cmd, args, &answer);

	json_decref(args);
	return cli_take(c, r, answer, ret);
}

int cli_show(const struct cli *c, const char *cmd, json_t *args, void (*print)(const json_t *v))
{
	json_t *v = NULL;
	int r = cli_call(c, cmd, args, &v);

	if (r == CLI_OK && c->json)
		cli_print_json(v);
	else if (r == CLI_OK)
		print(v);
	json_decref(v);
	return r;
}

int cli_print_json(const json_t *v)
{
	json_dumpf(v, stdout, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	putchar('\n');
	return CLI_OK;
}

/* Four results live at a time, for the arguments of one printf. */
static char *scratch(size_t *ret_size)
{
	static char bufs[4][512];
	static unsigned turn;

	*ret_size = sizeof(bufs[0]);
	return bufs[turn++ % 4];
}

static const char *value_text(const json_t *v)
{
	size_t size, i, n = 0;
	const json_t *el;
	char *s;

	if (json_is_string(v) && *json_string_value(v))
		return json_string_value(v);
	s = scratch(&size);
	snprintf(s, size, "-");
	if (json_is_integer(v)) {
		snprintf(s, size, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	} else if (json_is_real(v)) {
		snprintf(s, size, "%.4g", json_real_value(v));
	} else if (json_is_boolean(v)) {
		snprintf(s, size, "%s", json_is_true(v) ? "yes" : "no");
	} else if (json_is_array(v)) {
		json_array_foreach(v, i, el) if (json_is_string(el) && n < size) n +=
			(size_t)snprintf(s + n, size - n, "%s%s", n ? ", " : "", json_string_value(el));
	}
	return s;
}

const char *cli_text(const json_t *object, const char *key)
{
	return value_text(json_object_get(object, key));
}

const char *cli_size(json_int_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	unsigned u = 0;
	size_t size;
	char *s = scratch(&size);

	while (v >= 1024 && u < 4) {
		v /= 1024;
		u++;
	}
	snprintf(s, size, u && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return s;
}

void cli_print_object(const json_t *v)
{
	const char *key;
	json_t *el;
	int width = 0;

	json_object_foreach((json_t *)v, key, el) if ((int)strlen(key) > width) width = (int)strlen(key);
	json_object_foreach((json_t *)v, key, el)
	{
		if (json_is_object(el) || json_is_object(json_array_get(el, 0)))
			continue;
		for (const char *k = key; *k; k++)
			putchar(*k == '_' ? ' ' : *k);
		printf("%*s  %s\n", width - (int)strlen(key), "", value_text(el));
	}
}

void table_begin(struct table *t, unsigned cols, const char *const *heads)
{
	*t = (struct table){ .cols = cols };
	for (unsigned i = 0; i < cols; i++)
		table_cell(t, heads[i]);
}

void table_cell(struct table *t, const char *text)
{
	if (buf_put(&t->cells, text, strlen(text) + 1) == 0)
		t->n++;
}

static unsigned columns_of(const char *s)
{
	unsigned n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static const char *colour_of(const char *state)
{
	return strcmp(state, "up") == 0 ? "\033[32m" : strcmp(state, "down") == 0 ? "\033[31m" : "\033[33m";
}

void table_print(struct table *t)
{
	bool tty = isatty(STDOUT_FILENO) && !getenv("NO_COLOR"), right[32] = { 0 };
	unsigned width[32] = { 0 };
	const char *p = t->n ? buf_data(&t->cells) : "";

	for (unsigned i = 0; i < t->n; i++, p += strlen(p) + 1) {
		unsigned col = i % t->cols, n = columns_of(p);

		if (i < t->cols && *p == '>') {
			right[col] = true;
			n--;
		}
		if (n > width[col])
			width[col] = n;
	}
	p = t->n ? buf_data(&t->cells) : "";
	for (unsigned i = 0; i < t->n; i++, p += strlen(p) + 1) {
		unsigned col = i % t->cols;
		const char *text = i < t->cols && right[col] ? p + 1 : p;
		int pad = (int)(width[col] - columns_of(text));
		bool colour = tty && col && col == t->state_col && i >= t->cols, last = col + 1 == t->cols;

		printf("%*s%s%s%s%*s%s", right[col] ? pad : 0, "", colour ? colour_of(text) : "", text,
		       colour ? "\033[0m" : "", right[col] || last ? 0 : pad, "", last ? "\n" : "  ");
	}
	buf_free(&t->cells);
}

static int read_all(FILE *f, size_t max, struct buf *ret)
{
	while (!feof(f) && !ferror(f) && buf_len(ret) <= max) {
		char *p = buf_room(ret, 65536);

		if (!p)
			return -ENOMEM;
		buf_commit(ret, fread(p, 1, 65536, f));
	}
	return ferror(f) ? -errno : 0;
}

int cli_read_file(const struct cli *c, const char *path, size_t max, struct buf *ret)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	int r = f ? read_all(f, max, ret) : -errno;

	if (f && f != stdin)
		fclose(f);
	if (r)
		return cli_fail(c, CLI_FAILED, "%s: %s", path, strerror(-r));
	if (buf_len(ret) > max)
		return cli_fail(c, CLI_FAILED, "%s is longer than %zu bytes", path, max);
	return CLI_OK;
}
