/* SPDX-License-Identifier: Apache-2.0
 * Files of a model from a hub: a server with Hugging Face's paths (/api/models/REPO/revision/REV,
 * /REPO/resolve/REV/FILE). HTTPS only. Redirects are followed; the token stays with the hub.
 */
#ifndef KVS_CLI_HUB_H
#define KVS_CLI_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct hub {
	const char *endpoint; /* https://HOST[:PORT], without a slash at its end */
	const char *token;    /* NULL: none */
	const char *ca_file;  /* NULL: the system's */
	void *easy;	      /* private */
	char error[400];      /* after a failure: what, and what to do */
};

/* What is known of a file before it is there. */
struct hub_file {
	char sum[65]; /* 40 digits: git's name of its contents (SHA-1); 64: their SHA-256; "": not told */
	uint64_t size;
};

int hub_open(struct hub *h); /* 0 or -errno */
void hub_close(struct hub *h);

/* 0; -ENOENT: the model, revision or file is not there; -EACCES: a token is needed or refused; -EIO. h->error says it.
 */
int hub_list(struct hub *h, const char *repo, const char *revision, struct buf *ret_json);
/* <progress> may be NULL. -EBADMSG: what came has another checksum, and is gone. What was begun and not finished
 * is gone on with, also by a later call: <path>.<sum>.part. */
int hub_fetch(struct hub *h, const char *repo, const char *revision, const char *name, const struct hub_file *want,
	      const char *path, void (*progress)(void *arg, uint64_t have, uint64_t size), void *arg);
/* Has the file at <path> these contents? */
bool hub_has(const char *path, const struct hub_file *want);

#endif
