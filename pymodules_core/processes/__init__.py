"""The processes that train one run together: who they are, what they tell each other, who failed.

torch is imported by ``group`` alone; all the rest is asked before torch is needed.
"""
