/* SPDX-License-Identifier: Apache-2.0
 * kvsteer flow …: splices in the kernel.
 */
#include <errno.h>

#include "agent/commands.h"

static enum ctl_code flow_code(int r)
{
	return r == 0 ? CTL_OK : r == -ENOENT ? CTL_NOT_FOUND : CTL_FAILED;
}

static void trim(struct buf *err)
{
	while (buf_len(err) && buf_data(err)[buf_len(err) - 1] == '\n')
		err->len--;
}

enum ctl_code cmd_flow_list(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	enum ctl_code code = flow_code(flow_list(a->datapath, w, err));

	trim(err);
	return code;
}

static uint32_t flow_id(json_t *args, struct buf *err)
{
	json_int_t id = json_integer_value(json_object_get(args, "id"));

	if (id > 0 && id <= UINT32_MAX)
		return (uint32_t)id;
	buf_puts(err, "\"id\" is missing: a splice's number as `kvsteer flow list` shows it");
	return 0;
}

enum ctl_code cmd_flow_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	uint32_t id = flow_id(args, err);
	enum ctl_code code;

	if (!id)
		return CTL_USAGE;
	code = flow_code(flow_show(((struct agent *)arg)->datapath, id, w, err));
	trim(err);
	return code;
}

/* One of ours is ended by its worker, an orphan here. The answer is how it was. */
enum ctl_code cmd_flow_kill(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	uint32_t id = flow_id(args, err);
	int r;

	if (!id)
		return CTL_USAGE;
	r = flow_show(a->datapath, id, w, err);
	if (!r && carrier_kill(a->datapath, id))
		r = flow_kill(a->datapath, id, err);
	trim(err);
	return flow_code(r);
}
