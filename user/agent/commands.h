/* SPDX-License-Identifier: Apache-2.0
 * The commands of the control socket, an object a file; <arg> is the agent.
 */
#ifndef KVS_AGENT_COMMANDS_H
#define KVS_AGENT_COMMANDS_H

#include "agent/agent.h"

ctl_run cmd_pod_list, cmd_pod_show, cmd_pod_drain, cmd_pod_undrain;
ctl_run cmd_index_stats, cmd_index_lookup;
ctl_run cmd_decision_show, cmd_decision_tail;
ctl_run cmd_flow_list, cmd_flow_show, cmd_flow_kill;

const char *pod_state_name(const struct pod *p); /* as `kvsteer pod list` shows it */
const char *pod_state_why(const struct pod *p);	 /* "" where there is nothing to say */

#endif
