/* SPDX-License-Identifier: Apache-2.0
 * Instead of kernel.c where the build had no clang for BPF or no bpftool.
 */
#include <errno.h>

#include "datapath/datapath_int.h"

int kernel_enter(struct datapath *dp)
{
	return why_set(dp->why, -ENOTSUP,
		       "built without BPF: clang or bpftool was missing; install them and build again");
}

int kernel_load(struct datapath *dp, enum set set)
{
	return -ENOTSUP;
}
