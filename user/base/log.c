/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/jw.h"
#include "base/time.h"

static _Atomic int least = LOG_INFO;
static _Atomic int style = LOG_LOGFMT;

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_setup(enum log_level l, enum log_format format)
{
	atomic_store(&least, (int)l);
	atomic_store(&style, (int)format);
}

enum log_level log_level(void)
{
	return (enum log_level)atomic_load(&least);
}

static void write_line(struct buf *b)
{
	/* A log that cannot be written has nowhere to complain. */
	if (buf_put(b, "\n", 1) == 0 && write(STDERR_FILENO, buf_data(b), buf_len(b)) < 0) {
	}
	buf_free(b);
}

void log_raw(const char *text)
{
	struct buf b = { 0 };

	buf_puts(&b, text);
	write_line(&b);
}

static bool needs_quotes(const char *v)
{
	if (!*v)
		return true;
	for (; *v; v++)
		if ((unsigned char)*v <= ' ' || *v == '"' || *v == '=' || *v == '\\' || (unsigned char)*v >= 0x7f)
			return true;
	return false;
}

static void put_time(struct buf *b)
{
	uint64_t now = time_wall();
	time_t s = (time_t)(now / NS_PER_S);
	struct tm tm;
	char t[32];

	gmtime_r(&s, &tm);
	strftime(t, sizeof(t), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_printf(b, "%s.%03uZ", t, (unsigned)(now % NS_PER_S / NS_PER_MS));
}

void log_kv(enum log_level level, const char *msg, ...)
{
	struct buf b = { 0 };
	struct jw w;
	va_list ap;
	const char *key;

	if ((int)level < atomic_load_explicit(&least, memory_order_relaxed))
		return;
	jw_init(&w, &b);
	va_start(ap, msg);
	if (atomic_load(&style) == LOG_JSON) {
		struct buf t = { 0 };

		put_time(&t);
		jw_obj(&w);
		jw_key(&w, "time");
		jw_strn(&w, buf_str(&t));
		jw_kstr(&w, "level", level_names[level]);
		jw_kstr(&w, "msg", msg);
		while ((key = va_arg(ap, const char *))) {
			const char *v = va_arg(ap, const char *);

			jw_kstr(&w, key, v ? v : "");
		}
		jw_end_obj(&w);
		buf_free(&t);
	} else {
		buf_puts(&b, "time=");
		put_time(&b);
		buf_printf(&b, " level=%s msg=", level_names[level]);
		jw_str(&w, msg);
		while ((key = va_arg(ap, const char *))) {
			const char *v = va_arg(ap, const char *);

			v = v ? v : "";
			buf_printf(&b, " %s=", key);
			w.comma = false;
			if (needs_quotes(v))
				jw_str(&w, v);
			else
				buf_puts(&b, v);
		}
	}
	va_end(ap);
	write_line(&b);
}
