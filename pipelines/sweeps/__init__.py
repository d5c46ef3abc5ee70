"""Many runs from one file: stages x settings x seeds, in free slots of a machine or on Ray, and what they show together.

Imports run folders, stages and what scores them; commands are started as processes. Knows no command line.
"""
