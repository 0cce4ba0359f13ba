/* signals - what a signal does to the program. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_SIGNALS_H
#define HARNESS_CLI_SIGNALS_H

/* From now on SIGHUP, SIGINT, SIGQUIT and SIGTERM end the program tidily: no temporary file stays. */
void signals_handle(void);
/* The first of them only asks to stop; the next ends the program as before. */
void signals_ask_first(void);
int signals_asked(void); /* the signal that asked; 0: none */

#endif
