// Control groups: what kills one holder must not kill the other, and neither is to go with the service that started it.
#ifndef NYDUS_KEEPER_GROUP_H
#define NYDUS_KEEPER_GROUP_H

void group_enter(const char *name); // as far as this machine allows
_Noreturn void group_leave_and_exit(void);

#endif
