"""The images of a job, and the files of the filesystem store."""
