"""What the command and the experiments share. Imports no jax.

`errors`, `console`   errors that users see; what is printed, and how it is escaped
`files`, `lock`       writes that leave the old or the new file; one process for a folder
`signals`             Ctrl-C and SIGTERM
`caches`              folders of files that can be made again
`html_page`           a page with pictures, in one file
`machine`             the record of machine, versions, commit and date that every result has
"""
