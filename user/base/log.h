/* SPDX-License-Identifier: Apache-2.0
 * One line per event on stderr, logfmt or JSON. Only agent/, cli/ and tools/ call it; modules return errors.
 *
 *   log_info("pod ejected", "pod", name, "why", why)   →  time=… level=info msg="pod ejected" pod=… why=…
 *
 * Keys are literals, values are C strings (NULL prints as empty); the list ends by itself. Values are quoted and
 * escaped as needed, so no value can forge a line. Never give it a prompt's text.
 * Threads: any; a line is one write(2).
 */
#ifndef KVS_BASE_LOG_H
#define KVS_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

void log_setup(enum log_level least, enum log_format format);
enum log_level log_level(void);

/* A line that is its own format: <text> is written as it is, with a line feed behind it. */
void log_raw(const char *text);

/* (key, value) pairs up to a NULL key. */
void log_kv(enum log_level level, const char *msg, ...) __attribute__((sentinel));

#define log_debug(...) log_kv(LOG_DEBUG, __VA_ARGS__, (char *)0)
#define log_info(...)  log_kv(LOG_INFO, __VA_ARGS__, (char *)0)
#define log_warn(...)  log_kv(LOG_WARN, __VA_ARGS__, (char *)0)
#define log_error(...) log_kv(LOG_ERROR, __VA_ARGS__, (char *)0)

#endif
