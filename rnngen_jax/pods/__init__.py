"""Programs compiled for machines that are not there: what they cost on each device."""
