/* SPDX-License-Identifier: Apache-2.0
 * kvsteer OBJECT VERB: each object is a file with a table of its verbs; main.c finds them and checks what they are
 * given. A verb prints to stdout (a table, or one JSON value under -j), an error is one line on stderr.
 */
#ifndef KVS_CLI_CLI_H
#define KVS_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/str.h"

/* Exit codes, by class. The last two are of `model render`, which gives them numbers of its own. */
enum cli_exit { CLI_OK, CLI_FAILED, CLI_USAGE, CLI_UNREACHABLE, CLI_NOT_FOUND, CLI_RAISED, CLI_REFUSED };

enum cli_flag {
	FLAG_MODEL = 1,
	FLAG_LINES = 2,
	FLAG_RST = 4,
	FLAG_SET = 8,
	FLAG_TEMPLATE = 16,
	FLAG_TOKENIZER_CONFIG = 32,
	FLAG_REPEAT = 64,
	FLAG_TIME = 128,
	FLAG_CACHE = 256,
	FLAG_DECODE = 512,
	FLAG_SPECIAL = 1024,
	FLAG_API = 2048,
	FLAG_TOKENS = 4096,
	FLAG_POD = 8192,
	FLAG_ENDPOINT = 16384,
	FLAG_REVISION = 32768,
	FLAG_CA = 65536,
};

#define CLI_SET_MAX 64

struct cli {
	const char *control;
	bool json;
	const char *model; /* --model, NULL: none */
	unsigned lines;	   /* -n */
	bool rst;	   /* --rst */
	unsigned nset;	   /* --set */
	const char *set[CLI_SET_MAX];
	const char *template, *tokenizer_config; /* files; NULL: none */
	const char *api;			 /* NULL: chat */
	unsigned repeat;			 /* --repeat */
	bool time;				 /* --time */
	const char *cache;			 /* --cache-dir */
	bool decode, special, tokens;
	const char *pod;		      /* --pod: URL */
	const char *endpoint, *revision, *ca; /* of `model pull`; NULL: none */
};

struct verb {
	const char *name; /* NULL: the object is its own verb */
	const char *args; /* as in the synopsis */
	const char *doc;
	unsigned flags;	      /* enum cli_flag: options that it takes */
	unsigned min, max;    /* arguments */
	const char *complete; /* what its argument is: "pod", "flow", "file", a word, NULL */
	int (*run)(struct cli *c, int argc, char **argv);
};

struct object {
	const char *name, *doc;
	unsigned n;
	const struct verb *verbs; /* the first is what the object alone means */
};

#define OBJECT_VERBS(v) .n = sizeof(v) / sizeof((v)[0]), .verbs = (v)

extern const struct object object_status, object_pod, object_decision, object_index, object_config, object_bpf,
	object_flow, object_model, object_doctor, object_reload, object_drain, object_version, object_completion;
extern const struct object *const cli_objects[]; /* ends with NULL */

/* Say what is wrong and return <code>. */
int cli_fail(const struct cli *c, enum cli_exit code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Ask the daemon. <args> is taken, NULL: none. CLI_OK and its data in *ret, or it has been said what is wrong. */
int cli_call(const struct cli *c, const char *cmd, json_t *args, json_t **ret);
/* What ctl_call gave, and the answer (taken); as cli_call. */
int cli_take(const struct cli *c, int r, json_t *answer, json_t **ret);
/* Ask and print: the data as JSON under -j, else by <print>. Returns the exit code. */
int cli_show(const struct cli *c, const char *cmd, json_t *args, void (*print)(const json_t *v));
/* The data of an answer, borrowed; NULL when the daemon refused (said), and the exit code in *ret. */
json_t *cli_data(const struct cli *c, json_t *answer, int *ret);
/* What ctl_call and ctl_follow give as a negative errno. */
int cli_unreachable(const struct cli *c, int r);

/* All of a file, or of standard input ("-"); at most <max> bytes. CLI_OK, or it has been said what is wrong. */
int cli_read_file(const struct cli *c, const char *path, size_t max, struct buf *ret);

int cli_print_json(const json_t *v);
void cli_print_object(const json_t *v); /* KEY VALUE, a line each; lists joined, lists of objects left out */

/* A value as people read it; "-" for null and what is not there. Good until the fourth call after. */
const char *cli_text(const json_t *object, const char *key);
const char *cli_size(json_int_t bytes);

/* Columns as wide as their cells. Heads that begin with '>' are flushed right. */
struct table {
	unsigned cols, n;   /* columns, cells */
	struct buf cells;   /* each with its NUL, the heads first */
	unsigned state_col; /* coloured on a terminal; 0: none */
};
void table_begin(struct table *t, unsigned cols, const char *const *heads);
void table_cell(struct table *t, const char *text);
void table_print(struct table *t); /* and free it */

#endif
