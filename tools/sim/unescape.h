/* SPDX-License-Identifier: Apache-2.0
 * http/json.h's unescaping, apart: its names and jansson's do not go into one file.
 */
#ifndef SIM_UNESCAPE_H
#define SIM_UNESCAPE_H

#include "base/buf.h"

int unescape(struct str raw, struct buf *out); /* what stands between a string's quotes; as json_unescape */

#endif
