/* SPDX-License-Identifier: Apache-2.0
 * The verbs of `kvsteer model`, which needs no daemon. A verb is a file; cmd_model.c is their table.
 */
#ifndef KVS_CLI_CMD_MODEL_H
#define KVS_CLI_CMD_MODEL_H

#include "cli/cli.h"

int model_render(struct cli *c, int argc, char **argv);
int model_pull(struct cli *c, int argc, char **argv);
int model_add(struct cli *c, int argc, char **argv);
int model_list(struct cli *c, int argc, char **argv);
int model_tokenize(struct cli *c, int argc, char **argv);

#endif
