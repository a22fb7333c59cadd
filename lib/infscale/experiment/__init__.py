"""Running a design: trials, lifetimes of servers, folders of runs."""
