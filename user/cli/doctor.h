/* SPDX-License-Identifier: Apache-2.0
 * kvsteer doctor: findings, and who makes them. A check is a function that says what it has found, ok, warn or fail,
 * and for the latter two what to do.
 */
#ifndef KVS_CLI_DOCTOR_H
#define KVS_CLI_DOCTOR_H

#include "cli/cli.h"
#include "cli/web.h"

enum finding { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct doctor {
	const struct cli *c;
	json_t *findings; /* of the present subject */
	unsigned n[3];	  /* by enum finding */
};

/* <fix> NULL: nothing is to be done. */
void doctor_say(struct doctor *d, const char *check, enum finding is, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* <pod>: what the daemon's pod.show says of it. */
void doctor_pod(struct doctor *d, const json_t *pod);

#endif
