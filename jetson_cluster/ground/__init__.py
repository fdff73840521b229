"""Ground side: runs on a workstation, never imported by flight code."""
