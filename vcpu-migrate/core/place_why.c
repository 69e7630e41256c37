/* SPDX-License-Identifier: Apache-2.0 */
/* vcpu-migrate/core/place_why.c - the policy's reasons in words.  Pure. */
#include "vcpu-migrate/place.h"

const char *place_why_name(enum place_why why)
{
	static const char *const name[PLACE_WHYS] = { "scan", "pingpong", "load", "leaving", "rule", "fetch",
						      "copy", "known",	  "busy", "full",    "held" };

	return why < PLACE_WHYS ? name[why] : "?";
}

const char *place_why_text(enum place_why why)
{
	static const char *const text[PLACE_WHYS] = {
		[PLACE_SCAN] = "goes to the pages that it keeps fetching",
		[PLACE_PINGPONG] = "goes to the vCPUs that take the same pages in turns",
		[PLACE_LOAD] = "goes where CPUs are free",
		[PLACE_LEAVING] = "goes because its node is leaving",
		[PLACE_RULE] = "goes because it may not be where it is",
		[PLACE_FETCH] = "stays: fetching pages is cheaper than the move",
		[PLACE_COPY] = "stays: readable copies are cheaper than the move",
		[PLACE_KNOWN] = "stays: it was there, and waited as much",
		[PLACE_BUSY] = "stays: CPUs are short there",
		[PLACE_FULL] = "stays: no room there",
		[PLACE_HELD] = "stays: it, or one that it shares with, has just moved",
	};

	return why < PLACE_WHYS ? text[why] : "?";
}
