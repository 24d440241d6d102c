"""From an address to what was heard: fetched through gates, heard in processes that may do nothing else."""
