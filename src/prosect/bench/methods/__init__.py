"""What is on the bench: one file for each kind of method. A method is a function of what it is given and a seed."""
