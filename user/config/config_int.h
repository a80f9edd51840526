/* SPDX-License-Identifier: Apache-2.0
 * Between the files of config/: the tree that YAML becomes, the option table, values as people write them.
 */
#ifndef KVS_CONFIG_CONFIG_INT_H
#define KVS_CONFIG_CONFIG_INT_H

#include "config/config.h"

#define CONFIG_FILE_MAX	  (1u << 20) /* bytes */
#define CONFIG_NODES_MAX  65536
#define CONFIG_DEPTH_MAX  16
#define CONFIG_KEYS_MAX	  256 /* in one mapping */
#define CONFIG_LIST_MAX	  4096
#define CONFIG_ERRORS_MAX 50

/* --- yaml.c --- */

enum node_type { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
	enum node_type type;
	bool null; /* a plain scalar that says nothing: empty, ~, null */
	unsigned line, col;
	char *text;	    /* scalar */
	struct node *child; /* list, map: the first */
	struct node *next;  /* of the same list or map */
	unsigned n;	    /* children */
	char *key;	    /* in a map */
	unsigned key_line, key_col;
};

/* Messages, one a line. */
struct report {
	struct buf *err;
	const char *file; /* NULL: the command line */
	unsigned n;
	bool nomem;
};

/* <line> 0: not known. <key> may be NULL. */
void report_at(struct report *r, unsigned line, unsigned col, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* One document as a tree; NULL with nothing reported for an empty one. Duplicate keys are reported and left out. */
struct node *node_parse(struct str text, struct report *r);
void node_free(struct node *n);
const char *node_kind(const struct node *n); /* "a list" */

/* --- options.c --- */

struct section;

enum option_type {
	OPT_STRING,
	OPT_PATH, /* a file name; what a file says is relative to the file's directory */
	OPT_ENUM,
	OPT_BOOL,
	OPT_COUNT,
	OPT_DURATION,
	OPT_SIZE,
	OPT_SHARE,   /* double, 0 … 1 */
	OPT_STRINGS, /* list of strings */
	OPT_LIST,    /* list of sections */
	OPT_LATER,   /* reserved: refused */
};

struct option {
	const char *key; /* within its section: "limits.queue"; those with a common parent stand together */
	enum option_type type;
	size_t off, off_n;   /* of the value and, for lists, of their length */
	const char *def;     /* as one would write it; NULL: none */
	const char *allowed; /* OPT_ENUM: "auto|tc"; others: how a value looks */
	uint64_t min, max;   /* OPT_COUNT, OPT_DURATION, OPT_SIZE */
	/* Is the text well-formed? Else false, and why: `is not …`. */
	bool (*ok)(const char *text, struct buf *why);
	const struct section *list;	 /* OPT_LIST */
	bool restart;			 /* a reload does not change it */
	bool (*shown)(const void *base); /* NULL: always; else whether the effective configuration has it */
	const char *doc;
};

struct section {
	const char *name;
	size_t size;
	unsigned n;
	const struct option *opts;
};

extern const struct section section_root, section_listener, section_pool, section_pod;

const struct option *option_find(const struct section *s, struct str key);
/* Is there a key that begins with "<key>."? */
bool option_parent(const struct section *s, struct str key);

/* --- values.c: text ↔ values --- */

int value_duration(struct str s, uint64_t *ret); /* "200ms", "1.5s", "1m30s", "0": 0, -EINVAL, -ERANGE */
int value_size(struct str s, uint64_t *ret);	 /* "4KiB", "1MB", "512Mi", "4096" */
void value_put_duration(struct buf *out, uint64_t ns);
void value_put_size(struct buf *out, uint64_t bytes);

/* Set a scalar option of the struct at <base>. 0; -EINVAL and in <why> what follows the key in a message; -ENOMEM. */
int value_set(const struct option *o, void *base, const char *text, struct buf *why);
/* The value as value_set reads it, strings without quotes. False: there is none. */
bool value_put(const struct option *o, const void *base, struct buf *out);
/* "duration, default 30s, 1ms … 24h" */
void value_put_type(const struct option *o, struct buf *out);

/* --- places.c: is the text one? Else why not, as in option.ok. --- */

bool ok_listen(const char *t, struct buf *why); /* address literal and port */
bool ok_admin(const char *t, struct buf *why);	/* the same, or "" */
bool ok_hostport(const char *t, struct buf *why);
bool ok_events(const char *t, struct buf *why);
bool ok_replay(const char *t, struct buf *why);
bool ok_metrics(const char *t, struct buf *why);
bool ok_metrics_port(const char *t, struct buf *why);
bool ok_dns_name(const char *t, struct buf *why);
bool ok_dns_port(const char *t, struct buf *why);
bool ok_http_path(const char *t, struct buf *why);
bool ok_socket(const char *t, struct buf *why);
bool ok_devices(const char *t, struct buf *why);
bool ok_name(const char *t, struct buf *why);
bool ok_nonempty(const char *t, struct buf *why);

/* --- suggest.c --- */

/* Which of <words> was meant? NULL when none is near. <words> ends with NULL. */
const char *suggest(const char *word, const char *const *words);
void suggest_option(struct buf *out, const struct section *s, struct str prefix, const char *key);

/* --- config.c --- */

/* Where a key was set, for messages that come later. */
struct config_pos {
	char *key;
	unsigned line, col;
};

struct config_full {
	struct config pub; /* first */
	struct config_pos *pos;
	unsigned npos, cap_pos;
	bool default_listener; /* nobody has named a listener yet */
};

static inline const struct config_full *config_full(const struct config *c)
{
	return (const struct config_full *)c;
}

int section_init(const struct section *s, void *base); /* the defaults */
void section_free(const struct section *s, void *base);
void *list_at(const struct option *o, const void *base, unsigned *ret_n);
void *list_grow(const struct option *o, void *base); /* one more element with its defaults; NULL: no memory */

/* --- walk.c: tree → structs --- */

struct walk {
	struct report r;
	struct config_full *f; /* NULL: a pods file */
	struct str dir;	       /* what relative file names are relative to; {NULL, 0}: nothing */
	struct buf path;       /* "pools[0].limits.queue" */
};

size_t walk_push(struct walk *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void walk_complain(struct walk *w, const struct node *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* <prefix>: the parents' keys within the section, each with its dot. */
void walk_map(struct walk *w, const struct node *n, const struct section *s, void *base, const char *prefix);
void walk_list(struct walk *w, const struct option *o, void *base, const struct node *n);
bool pod_twice(const struct config_pod *pods, unsigned n); /* is the last one's address among the others? */

/* --- cmdline.c --- */

/* HOST:PORT[,KEY=VALUE]…; <p> has its defaults. -EINVAL and in <why> what follows the key in a message. */
int pod_from_text(struct config_pod *p, const char *spec, struct buf *why);

#endif
